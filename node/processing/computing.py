"""The steps of a study that compute, in a process of their own, which is killed when a step is over.

::

    worker                                            computing process (started by the worker, killable)
      RemotePipeline: the workflow ``process``          Pipeline: its steps; torch, networks and device
        compare, reselect, segment,     -- JSON -->
        report, refuse                  <-- JSON --

The process keeps the networks between two studies. A process that crashes is started again, and the step runs again; a
study at which it crashed ``engine.max_recoveries`` times has failed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import structlog
from pydantic import TypeAdapter

from node import errors
from node.config import Config
from node.errors import DefectError, GlionodeError, SelectionRefused, UnforeseenError
from node.log import set_up_log, study_context
from node.processing.pipeline import Pipeline
from node.processing.request import ProcessingRequest
from node.processing.step_errors import guarded
from node.processing.step_records import (
    SEGMENTED,
    ReportedResults,
    ResultsExist,
    Segmentation,
    Segmented,
)
from node.study import Selection
from node.workflow.killable_process import KillableProcess, ProcessDied, serve_calls
from node.workflow.states import CRASHED_TOO_OFTEN
from node.workflow.step_limits import count_crash, pause, step_under_way

log = structlog.get_logger()

COMMAND = (sys.executable, "-P", "-m", "node.processing.computing")
"""The command line of the computing process."""

_CRASH_PAUSE_SECONDS = 5.0

_SEGMENTED: TypeAdapter[Any] = TypeAdapter(SEGMENTED)
_REPORTED = TypeAdapter(ReportedResults)
_CONSIDERED = TypeAdapter(Selection)


class RemotePipeline(Pipeline):
    """The pipeline of a worker: its steps run in the computing process.

    Args:
        command: the command line of that process.
    """

    def __init__(self, config: Config, command: Sequence[str] = COMMAND) -> None:
        super().__init__(config)
        self._process = KillableProcess(command, config.model_dump_json(exclude_unset=True))
        self._most_crashes = config.engine.max_recoveries

    def stop(self) -> None:
        """Kill the computing process. A step under way does not return: this process is about to end."""
        self._process.stop()

    def compare(self, request: ProcessingRequest) -> str:
        """See `Pipeline.compare`."""
        return str(self._called("compare", request))

    def reselect(self, request: ProcessingRequest) -> str:
        """See `Pipeline.reselect`."""
        return str(self._called("reselect", request))

    def segment(self, request: ProcessingRequest, folder: str) -> Segmented:
        """See `Pipeline.segment`."""
        segmented: Segmented = _SEGMENTED.validate_python(self._called("segment", request, folder))
        return segmented

    def report(
        self, request: ProcessingRequest, folder: str, segmented: Segmentation | ResultsExist
    ) -> ReportedResults:
        """See `Pipeline.report`."""
        plain = _SEGMENTED.dump_python(segmented, mode="json")
        return _REPORTED.validate_python(self._called("report", request, folder, plain))

    def refuse(self, request: ProcessingRequest, folder: str, reason: str) -> list[str]:
        """See `Pipeline.refuse`."""
        return list(self._called("refuse", request, folder, reason))

    def _called(self, name: str, request: ProcessingRequest, *arguments: Any) -> Any:
        """The step's result from the computing process, which is started again after each crash.

        Raises:
            GlionodeError: what the step raised.
            DefectError: the process crashed too often at this study.
        """
        crashes = 0
        while True:
            try:
                answer = self._process.call(name, request.as_json(), *arguments)
            except ProcessDied as error:
                step = step_under_way()
                if step is not None and step.is_over:  # it was killed: nobody waits for this thread any more
                    raise UnforeseenError("the step was broken off") from None
                crashes += 1
                log.error("computing_died", step=name, exit_status=str(error))
                # without an answer of the database, at least the crashes of this step count
                if max(crashes, count_crash()) >= self._most_crashes:
                    raise DefectError(CRASHED_TOO_OFTEN) from None
                pause(_CRASH_PAUSE_SECONDS)
                continue
            if "error" in answer:
                raise _error(answer["error"])
            return answer["result"]


def _error_record(error: GlionodeError) -> dict[str, Any]:
    considered = error.considered if isinstance(error, SelectionRefused) else None
    return {
        "kind": type(error).__name__,
        "text": str(error),
        "considered": None if considered is None else _CONSIDERED.dump_python(considered, mode="json"),
    }


def _error(record: Mapping[str, Any]) -> GlionodeError:
    """The error that `_error_record` wrote. Only the classes of `node.errors` are made."""
    kind = getattr(errors, record["kind"])
    assert issubclass(kind, GlionodeError)
    considered = record["considered"]
    if considered is not None:
        error: GlionodeError = kind(record["text"], _CONSIDERED.validate_python(considered))
    else:
        error = kind(record["text"])
    return error


class _Steps:
    """The steps as functions of JSON values."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline

    def functions(self) -> dict[str, Callable[..., dict[str, Any]]]:
        """The steps by their names."""
        names = ("compare", "reselect", "segment", "report", "refuse")
        return {name: self._answering(getattr(self, f"_{name}")) for name in names}

    def _answering(self, step: Callable[..., Any]) -> Callable[..., dict[str, Any]]:
        def answer(request_json: str, *arguments: Any) -> dict[str, Any]:
            request = ProcessingRequest.from_json(request_json)
            with study_context(request.study_instance_uid):
                try:
                    return {"result": guarded(step, request, *arguments)}
                except GlionodeError as error:
                    return {"error": _error_record(error)}

        return answer

    def _compare(self, request: ProcessingRequest) -> str:
        return self._pipeline.compare(request)

    def _reselect(self, request: ProcessingRequest) -> str:
        return self._pipeline.reselect(request)

    def _segment(self, request: ProcessingRequest, folder: str) -> Any:
        return _SEGMENTED.dump_python(self._pipeline.segment(request, folder), mode="json")

    def _report(self, request: ProcessingRequest, folder: str, segmented: Any) -> Any:
        made = self._pipeline.report(request, folder, _SEGMENTED.validate_python(segmented))
        return _REPORTED.dump_python(made, mode="json")

    def _refuse(self, request: ProcessingRequest, folder: str, reason: str) -> list[str]:
        return self._pipeline.refuse(request, folder, reason)


def compute(descriptor: int, make_pipeline: Callable[[Config], Pipeline] = Pipeline) -> None:
    """The computing process: run the steps of the pipeline that ``make_pipeline`` makes until the worker ends."""

    def functions(greeting: str) -> Mapping[str, Callable[..., Any]]:
        config = Config.model_validate_json(greeting)
        set_up_log(config.log)
        return _Steps(make_pipeline(config)).functions()

    serve_calls(descriptor, functions)


if __name__ == "__main__":
    compute(int(sys.argv[1]))
