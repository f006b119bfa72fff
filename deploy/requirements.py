"""Print the requirements that pyproject.toml gives, one a line: the image installs them apart.

python3 requirements.py [EXTRAS], with EXTRAS as in `pip install .[up]`: "[up]" or "".
"""

import sys
import tomllib
from pathlib import Path


def requirements(pyproject: str, extras: str) -> list[str]:
    """The dependencies of the project and of *extras* ("[up,dev]", "up" or "")."""
    project = tomllib.loads(pyproject)["project"]
    wanted = list(project["dependencies"])
    for extra in filter(None, extras.strip("[] ").split(",")):
        wanted += project["optional-dependencies"][extra.strip()]
    return wanted


def build_requirements(pyproject: str) -> list[str]:
    """What building our own wheel takes; pip fetches it into a room of its own."""
    return list(tomllib.loads(pyproject)["build-system"]["requires"])


if __name__ == "__main__":
    text = Path("pyproject.toml").read_text(encoding="utf-8")
    sys.stdout.write("\n".join(requirements(text, "".join(sys.argv[1:]))) + "\n")
