"""The command `edge`, also as `python -m edge`."""


def main() -> None:
    """Run it; Ctrl-C while its modules are still being read ends it without a traceback."""
    try:
        from edge.cli import main as run
    except KeyboardInterrupt:
        raise SystemExit(1) from None
    run()


if __name__ == "__main__":
    main()
