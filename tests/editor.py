"""What an editor with YAML language server shows of a new project: `python -m tests.editor`.

Needs `yaml-language-server` in PATH (`npm install -g yaml-language-server`).
"""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from edge.project import create

COMMAND = "yaml-language-server"


class Editor:
    """The language server protocol over a pipe, as far as it takes."""

    def __init__(self, root: Path) -> None:
        self._server = subprocess.Popen(
            [COMMAND, "--stdio"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._said = 0
        settings = {"yaml": {"completion": True, "validate": True, "hover": True}}
        self._settings = settings["yaml"]
        self.ask("initialize", {"processId": None, "rootUri": root.as_uri(), "capabilities": {}})
        self.tell("initialized", {})
        self.tell("workspace/didChangeConfiguration", {"settings": settings})

    def tell(self, method: str, parameters: Any) -> None:
        self._put({"method": method, "params": parameters})

    def ask(self, method: str, parameters: Any) -> Any:
        """The answer; what else comes before it is answered or left out."""
        self._said += 1
        self._put({"id": self._said, "method": method, "params": parameters})
        return self._until(lambda got: got.get("id") == self._said and "method" not in got)[
            "result"
        ]

    def faults(self, uri: str) -> list[tuple[int, str]]:
        """Line (from 1) and message of what the server complains about next in this file."""
        got = self._until(
            lambda got: (
                got.get("method") == "textDocument/publishDiagnostics"
                and got["params"]["uri"] == uri
            )
        )
        found = got["params"]["diagnostics"]
        return [(each["range"]["start"]["line"] + 1, each["message"]) for each in found]

    def open(self, file: Path, text: str) -> str:
        uri = file.as_uri()
        document = {"uri": uri, "languageId": "yaml", "version": 1, "text": text}
        self.tell("textDocument/didOpen", {"textDocument": document})
        return uri

    def at(self, method: str, uri: str, text: str, mark: str) -> Any:
        """Ask about the place behind `mark`."""
        before = text[: text.index(mark) + len(mark)]
        place = {"line": before.count("\n"), "character": len(before.rpartition("\n")[2])}
        return self.ask(method, {"textDocument": {"uri": uri}, "position": place})

    def close(self) -> None:
        self._server.kill()
        self._server.wait()

    def _put(self, message: dict[str, Any]) -> None:
        assert self._server.stdin is not None
        body = json.dumps({"jsonrpc": "2.0", **message}).encode()
        self._server.stdin.write(b"Content-Length: %d\r\n\r\n" % len(body) + body)
        self._server.stdin.flush()

    def _until(self, wanted: Any) -> dict[str, Any]:
        assert self._server.stdout is not None
        while True:
            size = 0
            while (line := self._server.stdout.readline().strip()) or not size:
                if line.lower().startswith(b"content-length:"):
                    size = int(line.partition(b":")[2])
                elif not line and self._server.poll() is not None:
                    raise EOFError("the language server has ended")
            got: dict[str, Any] = json.loads(self._server.stdout.read(size))
            if wanted(got):
                return got
            if "id" in got and "method" in got:
                asked = got["method"] == "workspace/configuration"
                answer = [self._settings] * len(got["params"]["items"]) if asked else None
                self._put({"id": got["id"], "result": answer})


def main() -> None:
    """Open a good and a broken definition; exit with 1 if the editor does not help."""
    if shutil.which(COMMAND) is None:
        sys.exit(f"{COMMAND} is not in PATH; npm install -g {COMMAND}")
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder).resolve() / "my-plant"
        create(project, "mqtt")
        editor = Editor(project)
        try:
            show(editor, project / "pipelines" / "my-plant.yaml")
        finally:
            editor.close()


def show(editor: Editor, file: Path) -> None:
    text = file.read_text()
    good = editor.faults(editor.open(file, text))
    print(f"{file.name} as it is: {len(good)} complaints")
    broken = text.replace("  - filter:", "  - filtr:").replace("every: 10s", "every: 10")
    other = file.with_name("broken.yaml")
    uri = editor.open(other, broken)
    bad = editor.faults(uri)
    for line, message in bad:
        print(f"{other.name}:{line}: {message.splitlines()[0]}")
    typing = text.replace("operators:\n  #", "operators:\n  - \n  #", 1)
    third = file.with_name("typing.yaml")
    uri = editor.open(third, typing)
    offered = editor.at("textDocument/completion", uri, typing, "operators:\n  - ")["items"]
    names = sorted({item["label"] for item in offered})
    print(f"after `operators:` a dash offers: {', '.join(names)}")
    hover = editor.at("textDocument/hover", uri, typing, "        heart")
    print(f"over `deadband`'s heartbeat: {hover and hover['contents']['value'].splitlines()}")
    assert not good
    assert {line for line, _ in bad} >= {
        broken[: broken.index(word)].count("\n") + 1 for word in ("filtr", "every: 10}")
    }
    assert {"filter", "window", "deadband"} <= set(names)


if __name__ == "__main__":
    main()
