"""Fill deploy/wheels with all that an image build installs, for builds that reach no package index.

python3 deploy/fetch_wheels.py [--python 3.13] [--extras "[up]"]

The wheels are for one version of Python, that of the base image; the folder is emptied first.
"""

import argparse
import platform
import subprocess
import sys
from pathlib import Path

from requirements import build_requirements, requirements

ROOT = Path(__file__).resolve().parent.parent
WHEELS = ROOT / "deploy" / "wheels"

GLIBCS = ("manylinux_2_28", "manylinux_2_17", "manylinux2014")
"""Platform tags of wheels that run on Debian 11 and newer."""

BELOW_3_11_3 = ("async-timeout",)
"""redis asks for it there.  pip judges such conditions by its own interpreter, not by --python."""


def fetch(python: str, extras: str) -> int:
    """Download the wheels for *python* ("3.11"); returns how many files there are.

    CalledProcessError when pip fails; its own output says why.
    """
    clear()
    pyproject = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    wanted = [*requirements(pyproject, extras), *build_requirements(pyproject), *BELOW_3_11_3]
    platforms = [f"--platform={glibc}_{platform.machine()}" for glibc in GLIBCS]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--only-binary=:all:"]
    command += ["--dest", str(WHEELS), f"--python-version={python}", *platforms]
    subprocess.run([*command, *wanted], check=True)
    return len(list(WHEELS.glob("*.whl")))


def clear() -> None:
    """Remove what an earlier run left: a wheel there means that the index is not asked."""
    for wheel in WHEELS.glob("*.whl"):
        wheel.unlink()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", default="3.13", help="version of the base image's Python")
    parser.add_argument("--extras", default="", help='extras of the project, such as "[up]"')
    options = parser.parse_args()
    sys.stdout.write(f"{fetch(options.python, options.extras)} wheels in {WHEELS}\n")
