"""docker-compose.yml is parsed, since no Docker engine is needed to develop Glimpse."""

import json
import re
import subprocess
import tomllib
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
import yaml

from es_config.keys import key_requests

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docker-compose.yml").read_text()


@pytest.fixture(scope="module")
def services():
    return yaml.safe_load(TEXT)["services"]


DIGEST = r"@sha256:[0-9a-f]{64}"


def pinned(services) -> list[str]:
    """Return every image that is not built here."""
    bases = re.findall(r"^FROM (\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    return [*bases, *(service["image"] for service in services.values() if "image" in service)]


def test_every_image_is_pinned_to_a_full_version_and_its_digest(services):
    base, *images = pinned(services)
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+" + DIGEST, base)
    assert len(images) == 3
    assert len(set(images)) == 1
    assert re.fullmatch(r"docker\.elastic\.co/elasticsearch/elasticsearch:9\.5\.3" + DIGEST, images[0])


def test_ports_open_on_loopback_only(services):
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert len(ports) == 2
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_every_service_has_a_health_check(services):
    for name, service in services.items():
        assert service["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL"), name


def test_the_app_waits_for_a_healthy_elasticsearch(services):
    assert services["app"]["depends_on"]["elasticsearch"]["condition"] == "service_healthy"


def test_data_lies_in_named_volumes(services):
    declared = yaml.safe_load(TEXT)["volumes"]
    assert "elasticsearch-data:/usr/share/elasticsearch/data" in services["elasticsearch"]["volumes"]
    assert "glimpse-data:/data" in services["app"]["volumes"]
    assert set(declared) == {"ca", "certificates", "elasticsearch-data", "glimpse-data", "key"}


def test_every_variable_is_documented_and_in_the_example(services):
    named = set(re.findall(r"(?<!\$)\$\{(\w+)", TEXT))
    page = (ROOT / "docs" / "docker.md").read_text()
    example = (ROOT / ".env.example").read_text()
    assert named
    for variable in named | set(services["app"]["environment"]):
        assert f"`{variable}`" in page, variable
    assert named == set(re.findall(r"^(\w+)=", example, re.MULTILINE))


def test_no_container_has_rights_that_it_does_not_need(services):
    for name, service in services.items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["mem_limit"], name
        assert 0 < service["pids_limit"] <= 4096, name
        assert not service.get("privileged"), name
        runs_once = name in ("certificates", "key")
        assert service["restart"] == ("no" if runs_once else "unless-stopped"), name
    assert {name for name, service in services.items() if "cap_add" in service} == {"certificates"}
    assert services["app"]["read_only"] is services["key"]["read_only"] is True
    assert "/tmp" in services["app"]["tmpfs"]


def test_the_app_gets_a_certificate_and_a_key_and_no_password(services):
    app = services["app"]
    mounted = {each.split(":")[0]: each.split(":")[1:] for each in app["volumes"]}
    assert mounted["ca"] == ["/ca", "ro"]
    assert mounted["key"] == ["/key", "ro"]
    assert "certificates" not in mounted
    assert "PASSWORD" not in str(app)
    environment = app["environment"]
    assert environment["ELASTICSEARCH_API_KEY_FILE"] == "/key/api_key"
    assert environment["ELASTICSEARCH_CA_CERTS"] == "/ca/ca.crt"
    assert app["depends_on"]["key"]["condition"] == "service_completed_successfully"


def test_the_key_of_the_app_is_the_one_of_an_ingesting_machine(services):
    request = json.loads(services["key"]["environment"]["REQUEST"])
    assert request == next(each.body for each in key_requests("images") if each.machine == "ingest")


@pytest.mark.parametrize("there", ["nothing", "a valid key", "a key that is unknown"])
def test_the_key_is_created_unless_a_valid_one_is_there(services, tmp_path, there):
    (script,) = services["key"]["command"]
    (tmp_path / "key").mkdir()
    if there != "nothing":
        (tmp_path / "key" / "api_key").write_text("b2xk")
    curl = tmp_path / "curl"
    curl.write_text(
        "#!/bin/bash\n"
        f'echo "$@" >> {tmp_path}/asked\n'
        f'case "$*" in *_authenticate*) {"true" if there == "a valid key" else "exit 22"};;\n'
        """*) echo '{"id":"a","name":"b","api_key":"c","encoded":"bmV3"}';; esac\n"""
    )
    curl.chmod(0o755)
    script = script.replace("$$", "$").replace("/key/", f"{tmp_path}/key/")
    environ = {"PATH": f"{tmp_path}:/usr/bin:/bin", "ELASTIC_PASSWORD": "secret", "REQUEST": "{}"}
    subprocess.run(["/bin/bash", "-euc", script], env=environ, check=True, timeout=60)
    key = tmp_path / "key" / "api_key"
    assert key.read_text() == ("b2xk" if there == "a valid key" else "bmV3")
    asked = (tmp_path / "asked").read_text()
    assert ("elastic:secret" in asked) == (there != "a valid key")


def test_only_the_product_reaches_the_image():
    ignored = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] != "#"]
    assert ignored[0] == "*"
    admitted = {line[1:] for line in ignored if line.startswith("!")}
    built = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    packages = built["packages"]["find"]["include"]
    folders = {path.name for path in ROOT.iterdir() if path.is_dir()}
    product = {each for each in folders if any(fnmatchcase(each, glob) for glob in packages)}
    files = {"LICENSE", "README.md", "glimpse.py", "pyproject.toml", "requirements-app.lock"}
    assert admitted == {each for each in product if (ROOT / each / "__init__.py").exists()} | files
    assert "requirements-app.lock" in (ROOT / "Dockerfile").read_text()
    assert "requirements.lock" not in (ROOT / "Dockerfile").read_text()


def test_the_docs_say_how_to_look_a_digest_up(services):
    page = (ROOT / "docs" / "docker.md").read_text()
    for image in pinned(services):
        assert f"imagetools inspect {image.partition('@')[0]} " in page
