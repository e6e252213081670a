"""The same model behind LitServe, with batches; images come in a form: it takes no raw bodies.

Run with: python -m benchmarks.serving.through_litserve FOLDER PORT BATCH_TIMEOUT
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import litserve

from benchmarks.serving.peers import BATCH, canvas, load, shown
from core.inference.model import Answer, Pixels


class Api(litserve.LitAPI):  # type: ignore[misc]
    """The same steps as the others."""

    def __init__(self, folder: Path, timeout: float) -> None:
        super().__init__(max_batch_size=BATCH, batch_timeout=timeout)
        self.folder = folder

    def setup(self, device: str) -> None:  # noqa: ARG002
        """In the process that works."""
        self.model = load(self.folder)

    # Without an annotation it gets the request; with one, LitServe takes it for a query field.
    def decode_request(self, request) -> Pixels:  # type: ignore[no-untyped-def]
        """One image."""
        return canvas(self.model, request["file"].file.read())

    def batch(self, inputs: list[Pixels]) -> list[Pixels]:
        """As it is: the model stacks them."""
        return list(inputs)

    def predict(self, x: list[Pixels]) -> list[Answer]:
        """One pass."""
        return self.model.forward(x)

    def unbatch(self, output: list[Answer]) -> list[Answer]:
        """As it is."""
        return output

    def encode_response(self, output: Answer) -> dict[str, Any]:
        """One answer."""
        return shown(output, self.model.classes)


def main() -> None:
    """Serve until it is ended."""
    api = Api(Path(sys.argv[1]), float(sys.argv[3]))
    server = litserve.LitServer(api, accelerator="cpu")
    port = int(sys.argv[2])
    server.run(port=port, generate_client_file=False, log_level="warning", num_api_servers=1)


if __name__ == "__main__":
    main()
