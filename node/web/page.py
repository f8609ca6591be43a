"""Status page, health and metrics: server-rendered, read-only, no patient data (studies are named by UID)."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import uvicorn
from jinja2 import Environment, PackageLoader, select_autoescape
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from node import __version__
from node.config import Config
from node.dicom.uids import shortened
from node.errors import ConfigError, EngineError
from node.metrics import Metrics, StepAges, StudyCounts
from node.processing.known_studies import KnownStudies
from node.processing.study_status import StudyStatus
from node.scp.spool import Spool
from node.web.protection import Protection
from node.workflow.client import WorkflowClient
from node.workflow.worker_signs import StepAge

_START_SECONDS = 10.0
_COUNTS_KEPT_SECONDS = 5.0
_MOST_STUDIES_SHOWN = 200


@dataclass(frozen=True, slots=True)
class Sources:
    """Where the page gets its contents from.

    Attributes:
        is_well: returns True while instances are received and studies that are due are enqueued.
        worker_trouble: returns why no study is processed, or which step hangs; None: neither.
        steps: returns the steps that workers run now, oldest first.
    """

    client: WorkflowClient
    metrics: Metrics
    is_well: Callable[[], bool]
    worker_trouble: Callable[[], str | None] = lambda: None
    steps: Callable[[], Sequence[StepAge]] = tuple


def build_page(config: Config, sources: Sources, known: KnownStudies | None = None) -> ASGIApp:
    """The web application: ``/``, ``/studies.json``, ``/health`` and ``/metrics``. ``known``: the studies it shows.

    ``/health`` answers 503 if no study can be processed, or a step hangs.
    """
    environment = Environment(loader=PackageLoader("node.web"), autoescape=select_autoescape())
    template = environment.get_template("status.html")

    known = known or KnownStudies(config, sources.client)

    def newest_first() -> list[StudyStatus]:
        every = known.all()[::-1]
        return [_hidden(each) for each in every] if config.log.hide_uids else every

    def status(_: Request) -> Response:
        every = newest_first()
        shown = every[:_MOST_STUDIES_SHOWN]
        facts = {
            "lines": [(each, _result_texts(config, each)) for each in shown],
            "unshown": len(every) - len(shown),
            "counts": Counter(each.state for each in every).most_common(),
            "steps": sources.steps(),
            "free_mebibytes": Spool(config.spool_folder).free_bytes() // 2**20,
        }
        return HTMLResponse(template.render(facts, scp=config.scp, version=__version__))

    def studies(_: Request) -> Response:
        return JSONResponse([each.as_dict() for each in newest_first()])

    def health(_: Request) -> Response:
        if not sources.is_well():
            text = "nothing is received or handed over any more; see the log and restart the node"
            return PlainTextResponse(text, 503)
        trouble = sources.worker_trouble()
        return PlainTextResponse(trouble or "ok", 503 if trouble else 200)

    def measured(_: Request) -> Response:
        return Response(generate_latest(sources.metrics.registry), media_type=CONTENT_TYPE_LATEST)

    sources.metrics.registry.register(StepAges(lambda: [(each.step, each.seconds) for each in sources.steps()]))
    sources.metrics.registry.register(StudyCounts(_StudyStates(known)))

    def is_down(_: Request, error: Exception) -> Response:
        return PlainTextResponse(f"{error}; instances are received all the same", 503)

    routes = {"/": status, "/studies.json": studies, "/health": health, "/metrics": measured}
    application = Starlette(
        routes=[Route(path, endpoint) for path, endpoint in routes.items()], exception_handlers={EngineError: is_down}
    )
    application.router.redirect_slashes = False
    source, _, _ = PackageLoader("node.web").get_source(environment, "status.html")
    return Protection(application, config.web, source)


def _hidden(status: StudyStatus) -> StudyStatus:
    """``status`` with UIDs shortened, also in its reasons."""
    return replace(
        status,
        study_instance_uid=f"…{status.study_instance_uid[-4:]}",
        reason=status.reason and shortened(status.reason),
        attention=tuple(map(shortened, status.attention)),
        deliveries={
            name: replace(delivery, reason=delivery.reason and shortened(delivery.reason))
            for name, delivery in status.deliveries.items()
        },
    )


def _result_texts(config: Config, status: StudyStatus) -> dict[str, list[str]]:
    """From ``result.json``: the series chosen for each contrast and why, and the cautions. Empty without that file."""
    try:
        result = json.loads((config.work_folder / (status.folder or "none") / "result.json").read_text("utf-8"))
    except FileNotFoundError:
        return {"series": [], "cautions": []}
    found = {"series": (result.get("selection") or {}).get("short", []), "cautions": result.get("cautions", [])}
    return {key: [shortened(text) for text in texts] for key, texts in found.items()} if config.log.hide_uids else found


class _StudyStates:
    """State and kind of every study, read at most every few seconds. Empty while the database does not answer."""

    def __init__(self, known: KnownStudies) -> None:
        self._known = known
        self._lock = threading.Lock()
        self._states: list[tuple[str, str | None]] = []
        self._read_at = -_COUNTS_KEPT_SECONDS

    def __call__(self) -> list[tuple[str, str | None]]:
        with self._lock:
            if time.monotonic() - self._read_at >= _COUNTS_KEPT_SECONDS:
                try:
                    self._states = [(each.state, each.kind) for each in self._known.all()]
                except EngineError:  # a scrape still gets the other metrics
                    self._states = []
                self._read_at = time.monotonic()
            return self._states


@contextmanager
def running_page(config: Config, sources: Sources) -> Iterator[None]:
    """Serve the page in a thread until the block ends, if ``web.enabled`` is set.

    Raises:
        ConfigError: the port cannot be listened on.
    """
    if not config.web.enabled:
        yield
        return
    known = KnownStudies(config, sources.client)
    app = build_page(config, sources, known)
    settings = uvicorn.Config(
        app,
        host=config.web.host,
        port=config.web.port,
        ws="none",
        log_config=None,
        proxy_headers=False,
        server_header=False,
    )
    server = uvicorn.Server(settings)
    thread = threading.Thread(target=server.run, name="status-page")
    thread.start()
    # the first reading of a long history takes seconds: it is made now, not when somebody looks at the page
    threading.Thread(target=_StudyStates(known), name="first-reading", daemon=True).start()
    begun = threading.Event()
    for _ in range(int(_START_SECONDS * 20)):
        if server.started or not thread.is_alive():
            break
        begun.wait(0.05)
    try:
        if not server.started:
            raise ConfigError(f"web.port: cannot listen on {config.web.host}:{config.web.port}")
        yield
    finally:
        server.should_exit = True
        thread.join()
