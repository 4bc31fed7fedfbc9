"""The built wheel holds all that the product reads, and runs away from the repository."""

import json
import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent
PACKAGES = ("demo", "es_config", "evaluation", "ingest", "models", "search_app", "storage", "tuning")
NOT_SHIPPED = ("benchmarks", "scripts", "tests", "training")
LEFT_OUT = shutil.ignore_patterns(".*", "__pycache__", "build", "dist", "*.egg-info", "docs")


def run(command: list[str | Path], **options) -> str:
    """Return the stdout of a command, which must succeed and name no error on stderr."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy: setuptools leaves a folder `build`, which the next wheel takes in."""
    folder = tmp_path_factory.mktemp("wheel")
    source = shutil.copytree(ROOT, folder / "source", ignore=LEFT_OUT)
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-index",
        "--no-deps",
        "--no-build-isolation",
    ]
    run([*build, "--wheel-dir", folder / "dist", source])
    (built,) = (folder / "dist").iterdir()
    return built


def borrow_libraries(environment: Path) -> None:
    """Lend an environment the libraries of this one, without the editable install of this repository."""
    (packages,) = (environment / "lib").glob("python*/site-packages")
    borrowed = [entry for entry in sys.path if Path(entry).name in {"site-packages", "dist-packages"}]
    (packages / "borrowed.pth").write_text("\n".join(borrowed), encoding="utf-8")


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` folder of a fresh environment with the wheel, which borrows the libraries of this one."""
    folder = tmp_path_factory.mktemp("fresh environment")
    venv.create(folder)
    python = folder / "bin" / "python"
    borrow_libraries(folder)
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-index", "--no-deps"]
    run([*pip, wheel])
    return folder / "bin"


@pytest.fixture
def glimpse(installed: Path, tmp_path: Path):
    """A function that runs the installed command in an empty folder, for a user whose home is empty."""
    empty, home = tmp_path / "empty", tmp_path / "home"
    empty.mkdir()
    home.mkdir()
    environ = {"HOME": str(home), "PATH": os.environ["PATH"], "HF_HUB_OFFLINE": "1"}
    # Nothing answers on the discard port.
    environ["ELASTICSEARCH_URL"] = "http://127.0.0.1:9"
    return lambda *arguments: run([installed / "glimpse", *arguments], cwd=empty, env=environ)


def test_the_wheel_holds_every_file_of_the_packages_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    files = (path for name in PACKAGES for path in (ROOT / name).rglob("*") if path.is_file())
    wanted = {"glimpse.py", *(path.relative_to(ROOT).as_posix() for path in files if path.suffix != ".pyc")}
    assert {Path(name).suffix for name in wanted} >= {".css", ".html", ".js", ".json", ".safetensors"}
    assert {name for name in held if not name.endswith(".md")} == {
        name for name in wanted if not name.endswith(".md")
    }
    assert not {name.split("/")[0] for name in held} & set(NOT_SHIPPED)


def test_the_installed_command_knows_its_version_and_its_commands(glimpse):
    assert glimpse("--version") == "glimpse, version 0.1.0\n"
    assert "Usage: glimpse" in glimpse("--help")
    for command in ("ingest", "search", "serve", "tune", "evaluate", "demo"):
        assert f"Usage: glimpse {command}" in glimpse(command, "--help")


def test_the_installed_command_lists_its_models_and_describes_a_picture_with_those_in_the_wheel(
    glimpse, tmp_path
):
    profiles = json.loads(glimpse("model", "list", "--json"))
    assert "pocket" in [each["name"] for each in profiles]
    picture = tmp_path / "sea.png"
    Image.new("RGB", (96, 96), "navy").save(picture)
    assert glimpse("describe", str(picture), "--profile", "pocket").strip()


@pytest.fixture
def isolated(tmp_path: Path) -> dict[str, str]:
    """The environment of a user with an empty home, whom no server outside this machine answers."""
    (tmp_path / "home").mkdir()
    nowhere = "http://127.0.0.1:9"  # the discard port
    return {
        "HOME": str(tmp_path / "home"),
        "GLIMPSE_HOME": str(tmp_path / "glimpse home"),
        "PATH": os.environ["PATH"],
        "HTTP_PROXY": nowhere,
        "HTTPS_PROXY": nowhere,
        "NO_PROXY": "127.0.0.1,localhost",
    }


def test_a_bundle_installs_and_searches_where_there_is_no_network(wheel, isolated, tmp_path):
    from model_folders import save_profile

    from models.profiles import PROFILES

    save_profile(tmp_path / "repositories")
    slots = tmp_path / "slots"
    for role, source in PROFILES["clip"].models().items():
        shutil.copytree(tmp_path / "repositories" / source.name, slots / role)
    archive = tmp_path / "glimpse.tar"
    make = [sys.executable, "-m", "glimpse", "bundle", archive, "--profile", "clip", "--model-dir", slots]
    said = run([*make, "--wheel", wheel, "--without-libraries"], cwd=ROOT)
    assert said.startswith(f"{archive} holds Glimpse with profile clip, ")
    there, environment = tmp_path / "there", tmp_path / "there" / "environment"
    there.mkdir()
    run(["tar", "xf", archive, "-C", there])
    venv.create(environment, with_pip=True)
    borrow_libraries(environment)
    said = run(["sh", there / "glimpse-bundle" / "install.sh", environment], env=isolated)
    models = there / "glimpse-bundle" / "models"
    assert f'export GLIMPSE_PROFILE=clip GLIMPSE_MODEL_DIR="{models}"' in said
    assert not list(models.rglob("*.onnx"))

    def glimpse(*arguments: str | Path) -> str:
        settings = {"HF_HUB_OFFLINE": "1", "GLIMPSE_PROFILE": "clip", "GLIMPSE_MODEL_DIR": str(models)}
        return run([environment / "bin" / "glimpse", *arguments], cwd=there, env=isolated | settings)

    Image.new("RGB", (96, 96), "navy").save(there / "sea.png")
    glimpse("up", "--heap", "512m")
    try:
        assert "1 indexed" in glimpse("ingest", there / "sea.png", "--captions", "off")
        assert "sea.png" in glimpse("search", "a", "boat", "--text-lane", "local")
    finally:
        glimpse("down")
