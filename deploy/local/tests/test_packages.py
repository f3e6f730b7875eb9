"""Which packages are installed, and where that is refused."""

from pathlib import Path

import pytest

from deploy.local import packages
from deploy.local.errors import Refused
from deploy.local.settings import Settings


@pytest.mark.parametrize(
    ("release", "supported"),
    [
        ('ID=debian\nVERSION_ID="12"', True),
        ('ID=debian\nVERSION_ID="11"', False),
        ("ID=debian", True),
        ('ID=ubuntu\nVERSION_ID="24.04"', True),
        ('ID=ubuntu\nVERSION_ID="22.04"', False),
        ('ID=fedora\nVERSION_ID="43"', False),
        ("", False),
    ],
)
def test_supported_are_debian_12_and_ubuntu_24_and_newer(
    release: str, supported: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "os-release"
    file.write_text(release)
    monkeypatch.setattr(packages, "OS_RELEASE", file)
    assert packages.is_supported_system() is supported


def test_on_an_unsupported_system_the_line_names_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "os-release"
    file.write_text('ID=fedora\nVERSION_ID="43"\nPRETTY_NAME="Fedora 43"')
    monkeypatch.setattr(packages, "OS_RELEASE", file)
    absent = [packages.Package("redis-server", "Redis", lambda: False)]
    with pytest.raises(Refused, match=r"not supported \(Fedora 43\): .*install Redis yourself"):
        packages.install(absent, Settings(state=tmp_path))


def test_without_root_and_sudo_the_line_says_what_root_has_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setattr(packages, "is_supported_system", lambda: True)
    monkeypatch.setattr("shutil.which", lambda _name, **_: None)
    absent = [packages.Package("redis-server", "Redis", lambda: False)]
    with pytest.raises(Refused, match="as root, run `apt-get install -y --no-install-recommends redis-server`"):
        packages.install(absent, Settings(state=tmp_path))


def test_nothing_is_installed_when_nothing_is_missing(tmp_path: Path) -> None:
    packages.install([], Settings(state=tmp_path))
    assert list(tmp_path.iterdir()) == []
