"""The documents say what the code does: options, metrics, links and commands, both ways."""

import importlib
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from registry.runtime.config import KNOWN_SETTINGS, PARTS, Common, flag, settings_of

ROOT = Path(__file__).parent.parent
SECTIONS = (
    "Description", "Configuration", "Metrics", "Readiness", "Failure modes", "Examples",
)  # fmt: skip
PACKAGES = ("callboard", "registry", "dnsd", "registrar", "sidecar", "resolver_gateway")
METRIC = re.compile(r"\b(?:dnsd|registrar|registry|redis|sidecar|gateway)_[a-z0-9_]*[a-z0-9]\b")
COMMON = {flag(f.name) for f in settings_of(Common)}


@dataclass(frozen=True)
class Documented:
    """A part: its name on the command line, its package, its configuration class."""

    part: str
    package: str
    config: str

    @property
    def options(self) -> dict[str, str]:
        """Option → environment variable."""
        module = importlib.import_module(f"{self.package}.config")
        fields = settings_of(getattr(module, self.config))
        return {flag(f.name): f"CALLBOARD_{f.name.upper()}" for f in fields}


DOCUMENTED = [
    Documented("dnsd", "dnsd", "Config"),
    Documented("registrar", "registrar", "Config"),
    Documented("sidecar", "sidecar", "Settings"),
    Documented("gateway", "resolver_gateway", "Config"),
]


def readme(package: str) -> str:
    return (ROOT / package / "README.md").read_text()


def section(text: str, title: str) -> str:
    """What stands under the heading *title*, until the next of its level."""
    found = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", text, re.M | re.S)
    assert found is not None, f"no section {title}"
    return found[1]


@pytest.mark.parametrize("package", PACKAGES)
def test_every_package_has_a_readme_of_one_form(package: str) -> None:
    text = readme(package)
    for title in SECTIONS:
        assert section(text, title).strip(), f"{package}: {title} is empty"


@pytest.mark.parametrize("documented", DOCUMENTED, ids=lambda d: d.part)
def test_every_option_is_in_the_readme_and_no_other(documented: Documented) -> None:
    text = section(readme(documented.package), "Configuration")
    for option, variable in documented.options.items():
        assert f"`{option}" in text, f"{option} is missing"
        assert variable in text, f"{variable} is missing"
    rows = re.findall(r"^\| `(--[a-z-]+)", text, re.M)
    assert set(rows) <= documented.options.keys() | COMMON


def test_the_settings_that_any_part_accepts_are_those_of_all_parts() -> None:
    names = {f.name for f in settings_of(Common)}
    for documented in DOCUMENTED:
        names |= {o.removeprefix("--").replace("-", "_") for o in documented.options}
    assert names == KNOWN_SETTINGS
    assert {d.part for d in DOCUMENTED} == set(PARTS)


@pytest.mark.parametrize("documented", DOCUMENTED, ids=lambda d: d.part)
def test_every_metric_is_in_the_readme_and_no_other(documented: Documented) -> None:
    table = section(readme(documented.package), "Metrics")
    told = {name.removesuffix("_total") for name in METRIC.findall(table)}
    source = (ROOT / documented.package / "metrics.py").read_text()
    literals = re.findall(r'"([a-z0-9_]+)"', source)
    made = {n.removesuffix("_total") for n in literals if METRIC.fullmatch(n)}

    assert made
    assert told == made


def documents() -> list[Path]:
    found = [p for p in ROOT.rglob("*.md") if not any(x.startswith(".") for x in p.parts)]
    return [p for p in found if "wheels" not in p.parts]


@pytest.mark.parametrize("path", documents(), ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", path.read_text()):
        if "://" not in target:
            assert (path.parent / target).exists(), f"{path.name} links to {target}"


def test_the_index_of_decisions_is_whole() -> None:
    folder = ROOT / "docs" / "adr"
    listed = set(re.findall(r"\((\d{4}-[a-z-]+\.md)\)", (folder / "README.md").read_text()))
    assert listed == {p.name for p in folder.glob("0*.md")}


def test_the_targets_that_documents_name_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    for path in documents():
        for target in re.findall(r"(?:^|`|\$ )make ([a-z][a-z-]+)", path.read_text(), re.M):
            assert target in targets, f"{path.name}: make {target}"


def test_the_map_names_files_that_exist() -> None:
    for name in re.findall(r"`([a-z_]+/[a-z0-9_/]+\.py)`", (ROOT / "ARCHITECTURE.md").read_text()):
        assert (ROOT / name).exists(), name
