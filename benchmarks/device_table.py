"""A Markdown table that grows line by line, with the device and the versions that it was measured with."""

import argparse
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from learning_report import put

PACKAGES = ("torch", "transformers", "vllm", "peft")


class DeviceTable:
    """Prints its lines as they come, and puts them into a page at the end."""

    def __init__(self, *heads: str) -> None:
        """Begin with the heads of the columns."""
        self._lines: list[str] = []
        self.add(*heads)
        self.add(*("---" for _ in heads))

    def add(self, *cells: str) -> None:
        """Add a line."""
        self._lines.append(f"| {' | '.join(cells)} |")
        print(self._lines[-1], flush=True)

    def end(self, options: argparse.Namespace, mark: str) -> None:
        """Say what it was measured with, and put all of it into `options.report`, between the marks."""
        said = measured_with(options.device)
        print(f"\n{said}")
        if options.report is not None:
            put(["\n".join(self._lines), said], options.report, mark)


def add_report(parser: argparse.ArgumentParser) -> None:
    """Add `--report` to a benchmark's options."""
    parser.add_argument("--report", type=Path, help="Markdown file with the place for the table")


def measured_with(device: str) -> str:
    """Return the name of the device, and the versions of what computes."""
    if device.startswith("cuda"):
        named = f"{torch.cuda.get_device_name()} (CUDA {torch.version.cuda})"
    else:
        named = f"{torch.get_num_threads()} threads of a CPU ({platform.machine()})"
    return f"{named}; {', '.join(found for each in PACKAGES if (found := _installed(each)))}."


def _installed(package: str) -> str:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return ""
