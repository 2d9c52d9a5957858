"""Get AppWorld's own data: from the internet, or from a bundle that the user has carried over.

    python real_data.py FILES              download it
    python real_data.py FILES BUNDLE       unpack it

Run by `agentrl env setup appworld --data` and `--bundle FILE`, in AppWorld's interpreter. FILES/real gets the
data, FILES/real_play its copy to play in. What was there before stays until the new is complete.
"""

import argparse
import shutil
import signal
import sys
from pathlib import Path

from playground import copy_without_truth, has_data  # type: ignore[import-not-found]

SECONDS = 1800
BUNDLE = "https://s3.us-west-2.amazonaws.com/appworld.dev/data-0.1.0.bundle"
REMEDY = f"download {BUNDLE} elsewhere, carry it over and use --bundle FILE"


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(prog="real_data")
    parser.add_argument("files", type=Path)
    parser.add_argument("bundle", type=Path, nargs="?")
    arguments = parser.parse_args()
    files: Path = arguments.files.absolute()
    if arguments.bundle is None and has_data(files / "real"):
        print(f"AppWorld's data is in {files / 'real'} already")
        return
    workshop = files / "real_being_made"
    try:
        fetch(arguments.bundle, workshop)
        # Both are copied first, and then moved in at once.
        copy_without_truth(workshop, files / "real_play")
        shutil.rmtree(files / "real", ignore_errors=True)
        workshop.rename(files / "real")
    finally:
        shutil.rmtree(workshop, ignore_errors=True)


def fetch(bundle: Path | None, root: Path) -> None:
    """Fill `root`/data anew from a bundle, or from the internet."""
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    if bundle is None:
        download(root)
    else:
        unpack(bundle, root)
    if not has_data(root):
        sys.exit(
            "what came holds no AppWorld data: no data/datasets/train.txt, or no task with its ground truth"
        )


def download(root: Path) -> None:
    """Have AppWorld download its data to `root`/data, which is empty: it would remove what is there."""
    from appworld import update_root  # type: ignore[import-not-found]
    from appworld.download import download_data  # type: ignore[import-not-found]
    from requests import RequestException

    update_root(str(root))
    signal.signal(signal.SIGALRM, _give_up)
    signal.alarm(SECONDS)
    try:
        download_data()
    except (RequestException, TimeoutError) as error:
        sys.exit(f"AppWorld's data could not be downloaded ({type(error).__name__}); {REMEDY}")
    signal.alarm(0)
    if not (root / "data").exists():
        sys.exit(f"AppWorld's data could not be downloaded (the server refused); {REMEDY}")


def _give_up(number: int, frame: object) -> None:
    raise TimeoutError(f"it took longer than {SECONDS} s")


def unpack(bundle: Path, root: Path) -> None:
    """Decrypt and unpack a bundle to `root`/data."""
    from appworld.common.constants import PASSWORD, SALT  # type: ignore[import-not-found]
    from appworld.common.utils import unpack_bundle  # type: ignore[import-not-found]

    if not bundle.is_file():
        sys.exit(f"there is no file {bundle}")
    try:
        unpack_bundle(str(bundle), str(root), password=PASSWORD, salt=SALT)
    except Exception as error:
        # Cryptography and zip files raise a dozen kinds; whichever it is, the file is not what it should be.
        sys.exit(f"{bundle} is no bundle of AppWorld's data, or damaged ({type(error).__name__})")


if __name__ == "__main__":
    main()
