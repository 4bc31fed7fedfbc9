"""`glimpse bundle`: one archive for a machine without a network."""

from __future__ import annotations

import tempfile
from pathlib import Path

import click

from es_config.commands.options import FILE, MODEL_DIR, say, setting


@click.command()
@click.argument("target", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path))
@setting("--profile", "GLIMPSE_PROFILE", default="clip", help="Whose models; see `glimpse model list`.")
@MODEL_DIR
@click.option("--wheel", type=FILE, required=True, help="Glimpse's own wheel, as `make wheel` writes it.")
@click.option("--requirements", type=FILE, help="Lock file of the libraries, such as requirements-app.lock.")
@click.option(
    "--without-libraries", is_flag=True, help="Leave out the libraries: the other machine has them."
)
def bundle(
    *,
    target: Path,
    profile: str,
    model_dir: Path | None,
    wheel: Path,
    requirements: Path | None,
    without_libraries: bool,
) -> None:
    """Write one archive to install Glimpse on a machine without a network.

    It holds the wheels of Glimpse and its libraries, a Java among them, Elasticsearch's jars, and all models
    of a profile; the libraries are those of this system and this Python. See docs/offline.md.

    \b
    Example:
      make wheel
      glimpse bundle glimpse.tar --wheel dist/*.whl --requirements requirements-app.lock
      tar xf glimpse.tar && sh glimpse-bundle/install.sh ~/glimpse
    """
    from es_config.bundle import bundle_files, download_wheels, write_bundle
    from models.hub import download_bar, fetch_missing, slot_files
    from models.profiles import get_profile

    if (requirements is None) != without_libraries:
        raise click.UsageError("Name the libraries with --requirements, or say --without-libraries.")
    models = get_profile(profile, model_dir=model_dir).models()
    fetch_missing(models, say=say)
    with tempfile.TemporaryDirectory(dir=target.resolve().parent) as scratch:
        wheels = [wheel]
        if requirements:
            say("Downloading the wheels of the libraries: about 3 GB.")
            wheels += download_wheels(requirements, Path(scratch))
        files = bundle_files(wheels, say=say)
        files |= {f"models/{name}": path for name, path in slot_files(models).items()}
        with download_bar(doing="Packing") as report:
            size = write_bundle(target, files, profile=profile, requirements=requirements, report=report)
    click.echo(f"{target} holds Glimpse with profile {profile}, {size / 1e6:.0f} MB.")
    click.echo(f"There: tar xf {target.name} && sh glimpse-bundle/install.sh")
