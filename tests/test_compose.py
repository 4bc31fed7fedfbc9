"""docker-compose.yml is parsed, since no Docker engine is needed to develop Glimpse."""

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docker-compose.yml").read_text()


@pytest.fixture(scope="module")
def services():
    return yaml.safe_load(TEXT)["services"]


def test_every_image_is_pinned_to_a_full_version(services):
    images = [service["image"] for service in services.values() if "image" in service]
    assert images.count("elasticsearch:9.5.3") == len(images) == 2
    base = re.search(r"^FROM (\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE).group(1)
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+", base)


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
    assert set(declared) == {"certificates", "elasticsearch-data", "glimpse-data"}


def test_every_variable_is_documented_and_in_the_example(services):
    named = set(re.findall(r"\$\{(\w+)", TEXT))
    page = (ROOT / "docs" / "docker.md").read_text()
    example = (ROOT / ".env.example").read_text()
    assert named
    for variable in named | set(services["app"]["environment"]):
        assert f"`{variable}`" in page, variable
    assert named == set(re.findall(r"^(\w+)=", example, re.MULTILINE))
