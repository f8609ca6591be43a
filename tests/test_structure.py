"""Rules of the source tree, read from the source: directions of imports, libraries, sizes, imports without effect."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "node").rglob("*.py"))
BENCH = sorted((ROOT / "bench").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))

AT_THE_TOP = {
    "__init__", "__main__", "app", "config", "config_sections", "errors", "log", "metrics", "service_manager", "study",
    "worker_process",
}  # fmt: skip
"""The files that belong to no room."""

LEAVES = {"node.config_sections", "node.errors", "node.metrics", "node.study"}
"""What every room may import."""

ROOMS = {  # the rooms that each room may import from; those of the first lines know neither config nor log
    "dicom": set(),
    "scp": {"dicom"},
    "scu": {"dicom"},
    "audit": {"dicom"},
    "series": {"dicom"},
    "sr_writer": {"dicom"},
    "methods": set(),
    "segmentation": {"dicom", "series", "sr_writer", "methods"},
    "training": {"methods", "segmentation"},
    "workflow": {"config"},
    "notify": {"config", "log", "dicom", "workflow"},
    "delivery": {"config", "log", "dicom", "scu", "audit", "workflow", "notify"},
    "processing": {
        "config", "log", "dicom", "scp", "series", "methods", "segmentation", "sr_writer", "workflow", "notify",
    },
    "retention": {"config", "log", "dicom", "scp", "workflow", "processing"},
    "web": {"config", "dicom", "scp", "workflow", "processing"},
    "demo": {"config", "dicom", "scu", "series", "methods", "segmentation", "sr_writer"},
    "cli": {
        "app", "config", "log", "dicom", "scp", "scu", "audit", "series", "methods", "segmentation", "workflow",
        "notify", "delivery", "processing", "retention", "demo", "training",
    },
}  # fmt: skip

PUBLIC_FILES = {  # where one room may import only some files of another
    ("segmentation", "sr_writer"): {"node.sr_writer.codes"},
    ("segmentation", "series"): {"node.series.stack"},
    ("processing", "scp"): {
        "node.scp.spool", "node.scp.removal", "node.scp.aside", "node.scp.corrections", "node.scp.moved",
        "node.scp.rejection_note", "node.scp.withdrawals",
    },
    ("retention", "scp"): {"node.scp.aside", "node.scp.removal", "node.scp.withdrawals"},
    ("web", "scp"): {"node.scp.spool"},
}  # fmt: skip

TOP = {  # what the files at the top may import; app builds all parts, __main__ starts the command line
    "node": set(),
    "node.study": set(),
    "node.metrics": set(),
    "node.errors": {"node.study"},
    "node.config_sections": {"node.study"},
    "node.config": {"node.config_sections", "node.errors", "node.study"},
    "node.log": {"node.config_sections", "node.dicom.uids"},
    "node.service_manager": set(),
    "node.worker_process": {"node.service_manager"},
    "node.app": {"node"},
    "node.__main__": {"node.cli.main"},
}

OUTSIDE_NODE = {"bench", "chaos", "end_to_end", "support"}
"""Folders of tests/ that mirror no room."""

LIBRARIES = {  # library: where it may be imported
    "pynetdicom": ("scp/", "scu/", "demo/pacs.py"),
    "dicomweb_client": ("scu/stow.py",),
    "urllib3": ("scp/report_origin.py",),
    "requests": ("scu/stow.py", "scu/web_session.py", "methods/packs.py"),
    "cryptography": ("dicom/certificates.py",),
    "torch": (
        *(f"methods/{name}.py" for name in ("network", "layers", "feature_map_offload", "views", "packs")),
        "methods/dropout_net.py",
        "methods/dropout_unet.py",
        "methods/dropout_pack.py",
        "training/",
        *(f"methods/{name}.py" for name in ("segresnet", "sliding_window", "monai_bundle")),
        *(f"methods/{name}.py" for name in ("exported_network", "nnunet", "nnunet_network", "torch_weights")),
        *(f"segmentation/{name}.py" for name in ("brain", "device")),
    ),
    "SimpleITK": (
        *(f"segmentation/{name}.py" for name in ("volume", "second_reader", "align", "grid", "brain")),
        *(f"segmentation/{name}.py" for name in ("method", "enhancement", "intensity_match", "uptake")),
        "demo/overlay.py",
    ),
    "dicom2nifti": ("segmentation/converter.py",),
    "highdicom": ("segmentation/volume.py", "segmentation/seg_writer.py", "sr_writer/"),
    "dbos": ("workflow/",),
    "sqlalchemy": ("workflow/",),
}

BOUNDARIES = {("scp/assembly.py", "_tried"), ("processing/step_errors.py", "guarded")}
"""Where any exception may be caught: one study must not end the loop, or the worker, for all others."""

RECEIVER = ("node.app", "node.cli.serving", "node.cli.check", "node.processing.pipeline", "node.web.page")

LONGEST_FUNCTION, LONGEST_FILE, MOST_ARGUMENTS = 60, 300, 6


@cache
def parse(file: Path) -> ast.Module:
    """The syntax tree of ``file``."""
    return ast.parse(file.read_text(encoding="utf-8"), str(file))


def module_name(file: Path) -> str:
    """Dotted name of a source file."""
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def place(file: Path) -> str:
    """Path inside ``node/``."""
    return file.relative_to(ROOT / "node" if file.is_relative_to(ROOT / "node") else ROOT).as_posix()


MODULES = {module_name(file): file for file in SOURCES}


def imported(file: Path) -> Iterator[str]:
    """Every module that ``file`` imports, at its top, inside functions, or for type checking only."""
    for statement in ast.walk(parse(file)):
        if isinstance(statement, ast.Import):
            yield from (alias.name for alias in statement.names)
        elif isinstance(statement, ast.ImportFrom):
            assert statement.level == 0, f"{place(file)}:{statement.lineno}: a relative import"
            for alias in statement.names:
                inner = f"{statement.module}.{alias.name}"
                yield inner if inner in MODULES else str(statement.module)


def room(module: str) -> str | None:
    """The room of a module of ``node``; None for a file at the top."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and (ROOT / "node" / parts[1]).is_dir() else None


def is_inside(module: str, rooms: set[str]) -> bool:
    """True if ``module`` is one of ``rooms`` or lies in one."""
    return any(module == each or module.startswith(f"{each}.") for each in rooms)


def may_import(module: str, target: str) -> bool:
    """True if the tables let ``module`` import ``target``, another module of ``node``."""
    here, there = room(module), room(target)
    if here is None:
        return is_inside(target, TOP[module])
    if target in LEAVES or here == there:
        return True
    if there is None:
        return target.removeprefix("node.") in ROOMS[here]
    return there in ROOMS[here] and is_inside(target, PUBLIC_FILES.get((here, there), {f"node.{there}"}))


def functions(file: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function and method of ``file``, nested ones included."""
    return (each for each in ast.walk(parse(file)) if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef))


def test_each_room_sees_only_what_it_may():
    """No module imports from a room that its own room does not see; a new room needs a row in the table."""
    wrong = []
    for module, file in MODULES.items():
        for target in imported(file):
            # the package itself holds only the version, which all may read
            if target.split(".")[0] == "node" and target != "node" and not may_import(module, target):
                wrong.append(f"{module} imports {target}")
    assert not wrong


def test_rooms_see_one_another_in_no_circle():
    """The table of rooms itself allows no circle."""
    order = list(TopologicalSorter(ROOMS).static_order())
    assert set(ROOMS) <= set(order)


def test_tables_name_only_rooms_and_files_that_exist():
    """Every room has a row and a duty in one sentence; only the eleven named files lie at the top."""
    folders = {file.parent.name for file in (ROOT / "node").glob("*/__init__.py")}
    assert folders == set(ROOMS)
    assert {file.stem for file in (ROOT / "node").glob("*.py")} == AT_THE_TOP
    duties = {name: ast.get_docstring(parse(ROOT / "node" / name / "__init__.py")) or "" for name in folders}
    assert not {name: duty for name, duty in duties.items() if not duty.endswith(".") or "\n" in duty}


def test_tests_mirror_the_rooms():
    """Each folder of tests/ is named for a room, or is one of those that test the whole; each room has one."""
    folders = {folder.name for folder in (ROOT / "tests").iterdir() if any(folder.glob("*.py"))}
    assert folders == set(ROOMS) | OUTSIDE_NODE


def test_modules_import_one_another_in_no_circle():
    """The graph of all imports, those inside functions included, has no cycle."""
    graph = {
        module: {target for target in imported(file) if target in MODULES and target != module}
        for module, file in MODULES.items()
    }
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


@pytest.mark.parametrize("library", LIBRARIES)
def test_library_is_imported_only_where_it_may_be(library: str):
    """A library is imported only in the files that are named for it, and in at least one of them."""
    users = {place(file) for file in SOURCES if any(name.split(".")[0] == library for name in imported(file))}
    outside = {user for user in users if not user.startswith(LIBRARIES[library])}
    assert users
    assert not outside


def test_functions_are_short_and_take_few_arguments():
    """No function of node/ is longer than 60 lines or takes more than 6 arguments (self not counted)."""
    wrong = []
    for file in [*SOURCES, *BENCH]:
        for function in functions(file):
            given = function.args.posonlyargs + function.args.args + function.args.kwonlyargs
            count = len([each for each in given if each.arg not in ("self", "cls")])
            length = (function.end_lineno or 0) - function.lineno + 1
            if length > LONGEST_FUNCTION or count > MOST_ARGUMENTS:
                wrong.append(f"{place(file)}: {function.name}: {length} lines, {count} arguments")
    assert not wrong


def test_files_are_short_and_named_for_a_duty():
    """No file of node/ is longer than 300 lines, or has a name that says no duty, such as utils, helper or common."""
    lengths = {place(file): len(file.read_text(encoding="utf-8").splitlines()) for file in [*SOURCES, *BENCH]}
    assert not {name: length for name, length in lengths.items() if length > LONGEST_FILE}
    without_duty = ("util", "helper", "common")
    assert not [name for name in lengths if Path(name).stem.startswith(without_duty)]


def test_associations_are_requested_in_one_place():
    """Only scu/association.py requests associations, since it keeps responses that pynetdicom would drop."""
    requested = {
        place(file)
        for file in [*SOURCES, *BENCH]
        for each in ast.walk(parse(file))
        if isinstance(each, ast.Call) and isinstance(each.func, ast.Attribute) and each.func.attr == "associate"
    }
    assert requested == {"scu/association.py"}


def test_tls_is_set_up_in_one_place():
    """Only dicom/tls_profile.py makes a context of TLS, so that each connection follows the profile of the config."""
    made_by = {"PROTOCOL_TLS_SERVER", "PROTOCOL_TLS_CLIENT", "PROTOCOL_TLS", "create_default_context"}
    makers = {
        place(file)
        for file in SOURCES
        for each in ast.walk(parse(file))
        if isinstance(each, ast.Attribute) and each.attr in made_by
    }
    assert makers == {"dicom/tls_profile.py"}


def test_no_state_is_global_and_nothing_is_printed():
    """node/ has no ``global`` statement and never calls ``print``."""
    wrong = []
    for file in SOURCES:
        for each in ast.walk(parse(file)):
            is_print = isinstance(each, ast.Call) and isinstance(each.func, ast.Name) and each.func.id == "print"
            if is_print or isinstance(each, ast.Global):
                wrong.append(f"{place(file)}:{each.lineno}")
    assert not wrong


def broad_excepts(file: Path) -> Iterator[tuple[str, ast.ExceptHandler]]:
    """Handlers of everything, with the name of the function around them (empty at module level)."""
    around = {
        each.lineno: function.name
        for function in functions(file)
        for each in ast.walk(function)
        if isinstance(each, ast.ExceptHandler)
    }
    for each in ast.walk(parse(file)):
        if isinstance(each, ast.ExceptHandler):
            caught = {name.id for name in ast.walk(each.type) if isinstance(name, ast.Name)} if each.type else set()
            if each.type is None or caught & {"Exception", "BaseException"}:
                yield around.get(each.lineno, ""), each


def test_everything_is_caught_only_at_the_named_boundaries():
    """A broad ``except`` stands only where BOUNDARIES says, and gives its reason."""
    found = set()
    for file in SOURCES:
        lines = file.read_text(encoding="utf-8").splitlines()
        for function, handler in broad_excepts(file):
            found.add((place(file), function))
            _, marked, reason = lines[handler.lineno - 1].partition("# noqa: BLE001 - ")
            assert marked, f"{place(file)}:{handler.lineno}: not marked"
            assert reason.strip(), f"{place(file)}:{handler.lineno}: no reason given"
    assert found == BOUNDARIES
    assert len(BOUNDARIES) <= 2


def test_asserts_can_fail():
    """No test asserts a list, a tuple or a generator, which would be true whatever it holds."""
    always_true = (ast.ListComp, ast.GeneratorExp, ast.List, ast.Tuple)
    asserts = [(file, each) for file in TESTS for each in ast.walk(parse(file)) if isinstance(each, ast.Assert)]
    assert not [f"{file.name}:{each.lineno}" for file, each in asserts if isinstance(each.test, always_true)]


def test_each_test_states_what_it_expects():
    """Every test function has a docstring: one paragraph that ends with a full stop."""
    silent = []
    for file in TESTS:
        for function in functions(file):
            text = ast.get_docstring(function) or ""
            if function.name.startswith("test_") and not (text.endswith(".") and "\n\n" not in text):
                silent.append(f"{file.relative_to(ROOT)}:{function.lineno} {function.name}")
    assert not silent


def test_test_files_have_names_of_their_own():
    """No two test files share a name, for pytest imports them by it."""
    names = [file.name for file in TESTS if file.name != "conftest.py"]
    assert sorted(names) == sorted(set(names))


IMPORT_WATCH = """
import importlib, json, os, sys, threading
seen = []
start = threading.Thread.start  # Python 3.11 raises no audit event for it
threading.Thread.start = lambda thread: (seen.append("thread " + thread.name), start(thread))[1]
def watch(event, arguments):
    if event == "socket.bind" and arguments[1] == ("::1", 0):
        return  # urllib3, which pydicom imports, asks the kernel whether there is IPv6
    if event in ("socket.bind", "socket.connect", "subprocess.Popen", "os.mkdir",
                 "os.remove", "os.rename", "os.rmdir", "os.system", "os.fork", "os.posix_spawn", "signal.signal"):
        seen.append(event + " " + repr(arguments)[:200])
    elif event == "open":
        path, mode, flags = arguments
        if (flags or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) and path != os.devnull:
            seen.append("open for writing " + repr(path))
environment = dict(os.environ)
sys.addaudithook(watch)
for name in sys.argv[1:]:
    importlib.import_module(name)
events, torch = list(seen), sys.modules.get("torch")
changed = sorted(key for key in {**environment, **os.environ} if environment.get(key) != os.environ.get(key))
print(json.dumps({"events": events, "cuda": bool(torch and torch.cuda.is_initialized()),
                  "torch": torch is not None, "environment": changed}))
"""


def watched_import(*modules: str) -> dict:
    """What importing ``modules`` in a fresh interpreter did."""
    command = [sys.executable, "-B", "-c", IMPORT_WATCH, *modules]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_importing_has_no_effect():
    """Importing every module opens no connection or CUDA context, starts no thread or process, and writes no file."""
    effects = watched_import(*MODULES)
    assert effects["events"] == []
    assert effects["environment"] == []
    assert effects["cuda"] is False


def test_receiver_does_not_import_torch():
    """What the receiver process imports leaves torch out, so that it starts fast and stays small."""
    parts = [module for module in MODULES if room(module) == "scp"]
    assert watched_import(*RECEIVER, *parts)["torch"] is False


def test_step_report_does_not_import_torch():
    """A worker that only writes SEG and report, after a restart say, needs no networks."""
    writers = [module for module in MODULES if room(module) == "sr_writer"]
    names = ("regions_file", "volume", "seg_writer")
    assert watched_import(*writers, *(f"node.segmentation.{name}" for name in names))["torch"] is False
