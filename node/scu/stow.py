"""The sender by DICOMweb: STOW-RS (PS3.18 10.5); each response is read and classified.

A network error is a result here, never an exception. Reasons name the destination's host, never a URL, a credential, or
a value of a data set.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from urllib.parse import urlsplit

import pydicom
import requests
import structlog
from dicomweb_client.web import DICOMwebClient
from pydicom import Dataset

from node.dicom.outgoing import Outgoing, read_outgoing
from node.errors import ConfigError, DeliveryError
from node.scu.store import classify_status
from node.scu.web_session import Bearer, Session, tls_failure, use_tls
from node.study import InstanceDelivery, WebDestination

log = structlog.get_logger()

_JSON = "application/dicom+json"
_UNKNOWN_STUDY = "2.25.0"  # a study that does not exist: a query for it returns no patient's data
# statuses that remain if the same request is repeated; any other (no login, not found, server error) may be temporary
PERMANENT = frozenset(
    {
        HTTPStatus.BAD_REQUEST,
        HTTPStatus.METHOD_NOT_ALLOWED,
        HTTPStatus.NOT_ACCEPTABLE,
        HTTPStatus.CONFLICT,
        HTTPStatus.GONE,
        HTTPStatus.LENGTH_REQUIRED,
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        HTTPStatus.UNPROCESSABLE_ENTITY,
        HTTPStatus.NOT_IMPLEMENTED,
        HTTPStatus.HTTP_VERSION_NOT_SUPPORTED,
    }
)
_STORED_BEFORE = (0x0111, 0xB00E)  # failure reasons: duplicate SOP instance (PS3.7 C.5.7), and Azure's for it
# exceptions of the client and of pydicom on a response that is not DICOM JSON or XML
_PARSE_ERRORS = (AttributeError, LookupError, SyntaxError, TypeError, ValueError)


def _address(destination: WebDestination) -> str:
    parts = urlsplit(destination.url)
    return f"{destination.name} at {parts.hostname}" + (f":{parts.port}" if parts.port else "")


def _read(destination: WebDestination, key: str, file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise DeliveryError(f"{_address(destination)}: {key} cannot be read: {reason}") from None


@contextmanager
def _client(destination: WebDestination, timeout_seconds: float) -> Iterator[DICOMwebClient]:
    """A client with the settings of the config only: no proxy, .netrc or certificate of the environment.

    Raises:
        DeliveryError: a credential or CA file cannot be read.
    """
    with Session() as session:
        session.trust_env = False
        session.headers["Accept"] = _JSON
        if destination.ca_file or urlsplit(destination.url).scheme == "https":
            try:
                use_tls(session, destination.ca_file, destination.tls_profile)
            except ConfigError as error:
                raise DeliveryError(f"{_address(destination)}: {error}") from None
        if destination.token_file:
            session.auth = Bearer(_read(destination, "token_file", destination.token_file))
        elif destination.user:
            password = (
                _read(destination, "password_file", destination.password_file) if destination.password_file else ""
            )
            session.auth = requests.auth.HTTPBasicAuth(destination.user.encode(), password.encode())
        url = destination.url.rstrip("/")
        # in one piece, with a Content-Length: not every server accepts chunks
        client = DICOMwebClient(url, session, chunk_size=sys.maxsize, timeout=timeout_seconds)
        client.set_http_retry_params(retry=False)
        yield client


def store_instances(
    destination: WebDestination, files: Sequence[Path], timeout_seconds: float
) -> list[InstanceDelivery]:
    """Send ``files``, one request each, in their order; one delivery per file.

    An instance that a successful response does not list counts as delivered only if a query (QIDO-RS) finds it. If the
    service cannot be reached, the files that follow are not sent.

    Raises:
        InstanceRefused: the file meta of a file lacks the SOP class, the SOP instance or the transfer syntax.
        OSError: a file cannot be read.
    """
    outgoing = [read_outgoing(path) for path in files]
    deliveries: list[InstanceDelivery] = []
    try:
        with _client(destination, timeout_seconds) as client:
            for item in outgoing:
                deliveries.append(_store(client, destination, item))
    except DeliveryError as error:
        unsent = outgoing[len(deliveries) :]
        deliveries += [_undelivered(item, str(error), is_permanent=False) for item in unsent]
    for delivery in deliveries:
        if not delivery.is_delivered:
            log.warning(
                "instance_not_delivered",
                destination=destination.name,
                sop_instance_uid=delivery.sop_instance_uid,
                reason=delivery.reason,
            )
    return deliveries


def _undelivered(item: Outgoing, reason: str, is_permanent: bool) -> InstanceDelivery:
    return InstanceDelivery(item.sop_instance_uid, None, is_delivered=False, is_permanent=is_permanent, reason=reason)


def _store(client: DICOMwebClient, destination: WebDestination, item: Outgoing) -> InstanceDelivery:
    """Send one instance.

    Raises:
        DeliveryError: the service cannot be reached or does not respond.
    """
    data_set = pydicom.dcmread(item.path)
    try:
        answer = client.store_instances([data_set])
    except requests.HTTPError as error:
        return _refused(client, destination, item, _response(error))
    except requests.exceptions.JSONDecodeError:
        answer = Dataset()
    except requests.RequestException as error:
        raise DeliveryError(f"{_address(destination)}: {_network_error(error)}") from None
    except _PARSE_ERRORS:
        answer = Dataset()
    delivery = _listed(client, item, answer)
    if delivery is None and _is_stored(client, item):
        return classify_status(item.sop_instance_uid, 0x0000)
    return delivery or _undelivered(item, f"{_address(destination)} did not say that it stored it", is_permanent=False)


def _refused(
    client: DICOMwebClient, destination: WebDestination, item: Outgoing, response: requests.Response
) -> InstanceDelivery:
    delivery = _listed(client, item, _parsed(response))
    if delivery and not delivery.is_delivered:
        return delivery
    # a failure that lists the instance as stored contradicts itself; and some services respond with Conflict, and no
    # list, to an instance that they have stored before
    if (delivery or response.status_code == HTTPStatus.CONFLICT) and _is_stored(client, item):
        return delivery or classify_status(item.sop_instance_uid, 0x0111)
    reason = f"{_address(destination)} answered HTTP {_named(response.status_code)}"
    return _undelivered(item, reason, response.status_code in PERMANENT)


def _response(error: requests.HTTPError) -> requests.Response:
    assert error.response is not None
    return error.response


def _named(code: int) -> str:
    try:
        return f"{code} {HTTPStatus(code).phrase}"
    except ValueError:
        return str(code)


def _parsed(response: requests.Response) -> Dataset:
    try:
        return Dataset.from_json(response.json())
    except _PARSE_ERRORS:
        return Dataset()


def _listed(client: DICOMwebClient, item: Outgoing, answer: Dataset) -> InstanceDelivery | None:
    """The delivery by the Store Instances Response Module (PS3.18 I.2); None if it does not list the instance.

    An instance listed as failed is a failure, whatever else the response or a query says of it, unless the reason is
    that it was stored before, and a query finds it.
    """
    try:
        for failed in answer.get("FailedSOPSequence") or ():
            if failed.get("ReferencedSOPInstanceUID", item.sop_instance_uid) == item.sop_instance_uid:
                return _failed(client, item, int(failed.get("FailureReason") or 0x0110))
        for stored in answer.get("ReferencedSOPSequence") or ():
            if stored.get("ReferencedSOPInstanceUID") == item.sop_instance_uid:
                return classify_status(item.sop_instance_uid, int(stored.get("WarningReason") or 0x0000))
        for other in answer.get("OtherFailuresSequence") or ():  # of an instance that it does not name: the only one
            return _failed(client, item, int(other.get("FailureReason") or 0x0110))
    except _PARSE_ERRORS:
        return None
    return None


def _failed(client: DICOMwebClient, item: Outgoing, reason: int) -> InstanceDelivery:
    if reason in _STORED_BEFORE and _is_stored(client, item):
        return classify_status(item.sop_instance_uid, 0x0111)
    delivery = classify_status(item.sop_instance_uid, reason)
    if delivery.is_delivered:  # as the status of a C-STORE it would be a warning
        delivery = InstanceDelivery(item.sop_instance_uid, reason, False, False, f"0x{reason:04X} listed as failed")
    return delivery


def _is_stored(client: DICOMwebClient, item: Outgoing) -> bool:
    """True if a query finds the instance; False if not, or if the query fails."""
    try:
        found = client.search_for_instances(
            item.study_instance_uid, item.series_instance_uid, search_filters={"SOPInstanceUID": item.sop_instance_uid}
        )
        uids = {str(Dataset.from_json(each).get("SOPInstanceUID")) for each in found}
    except (requests.RequestException, *_PARSE_ERRORS):
        return False
    return item.sop_instance_uid in uids


def _network_error(error: requests.RequestException) -> str:
    # not the error's text, which holds the URL
    if isinstance(error, requests.exceptions.SSLError):
        return f"TLS: {tls_failure(error)}"
    if isinstance(error, requests.Timeout):
        return "does not answer"
    if isinstance(error, requests.ConnectionError):
        return "cannot be reached"
    return f"the request cannot be made ({type(error).__name__})"


def probe(destination: WebDestination, timeout_seconds: float) -> str | None:
    """Query for a study that does not exist. None if the service responds well, else the reason."""
    try:
        with _client(destination, timeout_seconds) as client:
            client.search_for_studies(search_filters={"StudyInstanceUID": _UNKNOWN_STUDY}, limit=1)
    except requests.HTTPError as error:
        code = _response(error).status_code
        # a service that only stores does not support queries
        is_store_only = code in (HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.NOT_IMPLEMENTED)
        return None if is_store_only else f"answered HTTP {_named(code)}"
    except requests.exceptions.JSONDecodeError:
        return "did not answer in DICOM JSON"
    except requests.RequestException as error:
        return _network_error(error)
    except DeliveryError as error:
        return str(error)
    except _PARSE_ERRORS:
        return "did not answer in DICOM JSON"
    return None
