"""Commands about container images: image build."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from edge.cli.screen import Commands, put, put_json, put_table
from edge.cli.working import Say, waiting

if TYPE_CHECKING:
    from edge.deploy.engine import Engine
    from edge.deploy.image import Built


def add_to(app: typer.Typer) -> None:
    """Register the group of commands of this module."""
    group = typer.Typer(
        cls=Commands, no_args_is_help=True, help="Container images of the processor."
    )
    group.callback()(_image)
    group.command()(build)
    app.add_typer(group, name="image")


def _image() -> None:
    pass


def build(
    definitions: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="FILE", help="Definitions, or folders of them, for /pipelines; else mount them."
        ),
    ] = None,
    tag: Annotated[str | None, typer.Option(help="Name and version; default edge:VERSION.")] = None,
    platform: Annotated[
        str, typer.Option(help="linux/amd64, linux/arm64, or both with a comma.")
    ] = "linux/amd64",
    cpu: Annotated[
        Literal["baseline", "compat"],
        typer.Option(help="compat: for x86-64 processors without AVX2, as many gateways have."),
    ] = "baseline",
    slim: Annotated[
        bool, typer.Option("--slim", help="Leave out what no definition uses.")
    ] = False,
    base: Annotated[str | None, typer.Option(help="Image with Python 3.11 or later.")] = None,
    python: Annotated[
        str | None, typer.Option(help="Python of the base, where it does not tell: 3.13.")
    ] = None,
    extra: Annotated[
        list[str] | None,
        typer.Option("--with", help="A further package, as pip has it: parts of your own."),
    ] = None,
    dockerfile: Annotated[
        Path | None, typer.Option("--file", exists=True, help="A Dockerfile of your own.")
    ] = None,
    push: Annotated[bool, typer.Option("--push", help="Send it to its registry.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Build container images with the Docker engine of this machine.

    Needs the extra `deploy`. Packages come from pip as wheels of the image's platform, so that
    nothing is emulated.
    """
    import edge
    from edge.deploy import image
    from edge.deploy.engine import Engine

    wanted = image.Wanted(
        tag=tag or f"edge:{edge.__version__}",
        definitions=definitions or (),
        platforms=[each.strip() for each in platform.split(",")],
        base=base or image.BASE,
        python=python,
        compat=cpu == "compat",
        slim=slim,
        extra=extra or (),
        dockerfile=dockerfile,
    )
    image.check(wanted)
    engine = Engine.connect()
    with waiting() as tell:
        images = image.build(engine, wanted, tell)
        digests = [_pushed(engine, each, tell) if push else each.digest for each in images]
    if as_json:
        put_json([_as_dict(each, name) for each, name in zip(images, digests, strict=True)])
        return
    for each, name in zip(images, digests, strict=True):
        _show(each, name)
    if push and len(images) > 1:
        tags = " ".join(each.tag for each in images)
        put(f"docker manifest create {wanted.tag} {tags} && docker manifest push {wanted.tag}")


def _pushed(engine: "Engine", built: "Built", tell: Say) -> str:
    tell(f"{built.platform}: push {built.tag}")
    return engine.push(built.tag)


def megabytes(size: int) -> str:
    """`12.3 MB`."""
    return f"{size / 1e6:.1f} MB"


def _show(built: "Built", digest: str) -> None:
    layers = [(megabytes(each.size), each.made_by) for each in built.layers if each.size]
    put_table(("size", "layer"), layers)
    rows = [(megabytes(size), what) for what, size in built.contents]
    rows.append((megabytes(built.base), "the base image"))
    put_table(("size", "of"), rows)
    put(f"{built.tag} {built.platform}: {megabytes(built.size)} unpacked, {digest}")


def _as_dict(built: "Built", digest: str) -> dict[str, object]:
    return {
        "tag": built.tag,
        "platform": built.platform,
        "digest": digest,
        "size": built.size,
        "base": built.base,
        "contents": dict(built.contents),
        "layers": [{"size": each.size, "made_by": each.made_by} for each in built.layers],
    }
