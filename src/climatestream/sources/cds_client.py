"""The Climate Data Store through ECMWF's own client, and what it says as errors of ours.

The client (`ecmwf-datastores-client`) knows the addresses and the answers; when to try again is
decided here and by who calls, since the client waits two minutes whatever the service says, and
can't be interrupted: docs/decisions/data-store-client.md.
"""

from __future__ import annotations

import os
import re
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar
from urllib.parse import urlsplit

from climatestream.errors import NotServed, SourceError, SourceUnavailable, UsageError
from climatestream.logs import LOGGER

if TYPE_CHECKING:
    from collections.abc import Mapping

    import requests
    from ecmwf.datastores import Client, Process, Remote

    from climatestream.sources.cds_plan import Ask

T = TypeVar("T")

URL: Final = "https://cds.climate.copernicus.eu/api"
PROFILE: Final = "https://cds.climate.copernicus.eu/profile"
HOW_TO: Final = "https://cds.climate.copernicus.eu/how-to-api"
RC_FILE: Final = "~/.cdsapirc"

TIMEOUT_S: Final = 60.0
"""How long an answer may take to begin [s]; the client's own default."""

BUSY: Final = {408, 429, 500, 502, 503, 504}
"""Status codes after which the same call may succeed."""

SEEN_JOBS: Final = 50
"""How many of a user's latest requests are looked through for one whose name was lost."""

CLOCKS_S: Final = 3600.0
"""How far this clock and the service's may be apart [s]."""

QUEUE_FULL: Final = "temporarily limited"
"""In the words with which the service rejects a request since too many are queued: 'Number queued
requests for this dataset is temporarily limited. Please configure your scripts accordingly'."""

NO_DATA: Final = re.compile(r"nodata|no data|not provide a valid time", re.IGNORECASE)
"""In the words with which it fails where it has nothing: MarsNoDataError, for one."""


class TooLarge(SourceError):
    """A request is above the service's cost limit: ask for less at once."""


class Gone(SourceError):
    """The service does not know a request any more, or has dropped its answer: ask again."""


class QueueFull(SourceUnavailable):
    """The service takes no more requests of this dataset for now."""


class Failed(SourceUnavailable):
    """A request failed at the service; another one for the same may succeed."""


@dataclass(frozen=True)
class Credentials:
    """Where the Data Store is, and the key of a user.

    Parameters
    ----------
    where
        Where the key was found, for messages.
    """

    url: str
    key: str = field(repr=False)
    where: str


def credentials(environment: Mapping[str, str] = os.environ) -> Credentials:
    """The address and the key, as `cdsapi` finds them: CDSAPI_URL and CDSAPI_KEY, ~/.cdsapirc.

    Raises
    ------
    NotServed
        There is no key, or one of the Data Store that was switched off in 2024.
    UsageError
        The key would be sent where it can be read.
    """
    path = Path(environment.get("CDSAPI_RC") or RC_FILE)
    url, key = environment.get("CDSAPI_URL"), environment.get("CDSAPI_KEY")
    where = "CDSAPI_KEY"
    if not key:
        said = _rc_file(path.expanduser())
        key, url = said.get("key"), url or said.get("url")
        where = str(path)
    key = (key or "").strip()
    if not key:
        raise NotServed(
            "key",
            "there is no key for the Climate Data Store in CDSAPI_KEY or "
            f"{path}: open {HOW_TO}, which shows yours and where to put it",
        )
    if re.fullmatch(r"\d+:[0-9a-f-]{36}", key):
        raise NotServed(
            "key",
            f"the key in {where} is of the Data Store that was switched off in 2024 "
            f"(user:key): open {PROFILE} and copy the new one, which has no colon",
        )
    if not re.fullmatch(r"[!-~]+", key):
        raise NotServed(
            "key",
            f"the key in {where} has a character that no key has, such as a space or a line break: "
            f"open {PROFILE} and copy it again",
        )
    url = (url or URL).strip().rstrip("/").removesuffix("/v2")
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise UsageError(
            f"the Data Store's address {url} is none ({error}): {URL} is the Climate Data Store's"
        ) from error
    if parts.scheme != "https" and parts.hostname not in {"127.0.0.1", "localhost", "::1"}:
        raise UsageError(
            f"the Data Store's address {url} would send the key unencrypted, expected https: "
            f"{URL} is the Climate Data Store's"
        )
    return Credentials(url, key, where)


def _rc_file(path: Path) -> dict[str, str]:
    try:
        lines = path.read_text("utf-8").splitlines()
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8"
        raise NotServed("key", f"{path}, which holds the key, can't be read: {reason}") from error
    pairs = (line.partition(":") for line in lines if not line.lstrip().startswith("#"))
    return {name.strip(): value.strip() for name, _, value in pairs if value.strip()}


@dataclass(frozen=True)
class Answer:
    """Where the answer to a request is, and its size [bytes]."""

    url: str
    size: int


State = Literal["accepted", "running", "successful"]


class Job:
    """A request that the service has accepted."""

    def __init__(self, store: DataStore, ask: Ask, remote: Remote) -> None:
        self._store = store
        self._ask = ask
        self._remote = remote

    @property
    def id(self) -> str:
        return self._remote.request_id

    def state(self) -> State:
        """How far it is.

        Raises
        ------
        Gone
            The service does not know it.
        QueueFull
            It was rejected, as too many wait.
        NotServed
            The service has nothing of what is asked for.
        Failed
            It failed there.
        SourceUnavailable
            The service does not answer.
        """

        def look() -> State:
            ready = self._remote.results_ready
            return "successful" if ready else "running" if self._running else "accepted"

        try:
            return self._store.call(look, self._ask, job=True)
        except _Refused as error:
            raise self._ended(error.words) from error

    @property
    def _running(self) -> bool:
        return str(self._remote.last_status) == "running"

    def _ended(self, words: str) -> SourceError | SourceUnavailable:
        """What a job's failure means."""
        of = f"the Climate Data Store's {self._ask.collection} for {self._ask.label}"
        if QUEUE_FULL in words:
            return QueueFull(f"{of} waits: {words}")
        if NO_DATA.search(words):
            return NotServed("time", f"{of}: there is no such data ({words})")
        return Failed(f"{of} failed there: {words}")

    def inputs(self) -> dict[str, Any]:
        """What was asked for."""
        return self._store.call(lambda: self._remote.request, self._ask, job=True)

    def answer(self) -> Answer:
        """Where its answer is.

        Raises
        ------
        Gone
            It has been dropped.
        """

        def look() -> Answer:
            results = self._remote.get_results()
            return Answer(results.location, results.content_length)

        try:
            return self._store.call(look, self._ask, job=True)
        except _Refused as error:
            raise self._ended(error.words) from error


class DataStore:
    """The service, for threads that ask one after the other.

    Parameters
    ----------
    who
        Where it is, and who asks.

    Raises
    ------
    NotServed
        ECMWF's client is not installed.
    """

    def __init__(self, who: Credentials) -> None:
        try:
            import ecmwf.datastores  # noqa: F401
        except ImportError as error:
            raise NotServed(
                "package",
                "reading the Climate Data Store needs ECMWF's client: "
                "pip install 'climatestream[cds]'",
            ) from error
        self._who = who
        self._lock = threading.Lock()
        self._processes: dict[str, Process] = {}
        self._client: Client | None = None
        self._quiet_until_s = 0.0

    def cost(self, ask: Ask) -> tuple[float, float]:
        """What a request costs, and what one may cost; the service's own unit.

        Raises
        ------
        NotServed, SourceError, SourceUnavailable
            As for every call: the key, the licence, the dataset, or no answer now.
        """
        said = self.call(lambda: self._process(ask).estimate_costs(dict(ask.inputs)), ask)
        return float(said.get("cost") or 0.0), float(said.get("limit") or "inf")

    def days(self, ask: Ask) -> list[str] | None:
        """Of the month of a request, the days that there are; None: the service does not say."""
        if ask.month is None:
            return None
        year, month = ask.month
        try:
            said = self.call(
                lambda: self._process(ask).apply_constraints({"year": [year], "month": [month]}),
                ask,
            )
        except _Refused:
            return None
        days = said.get("day")
        return None if days is None else sorted(str(day).zfill(2) for day in days)

    def submit(self, ask: Ask) -> Job:
        """Ask for it.

        Raises
        ------
        TooLarge
            It is above the cost limit.
        """
        return Job(self, ask, self.call(lambda: self._process(ask).submit(dict(ask.inputs)), ask))

    def job(self, ask: Ask, request_id: str) -> Job:
        """A request that was asked for before.

        Raises
        ------
        Gone
            The service does not know it.
        """
        remote = self.call(lambda: self._open().get_remote(request_id), ask, job=True)
        return Job(self, ask, remote)

    def lost(self, ask: Ask, since_s: float) -> Job | None:
        """The job of a request that was sent, and whose answer never came; None: there is none.

        Parameters
        ----------
        since_s
            When it was sent [s since 1970].
        """
        jobs = self.call(
            lambda: self._open().get_jobs(
                limit=SEEN_JOBS,
                sortby="-created",
                status=["accepted", "running", "successful"],
            ),
            ask,
        )
        for said in jobs.json.get("jobs", []):
            if said.get("processID") != ask.collection or _instant(said) < since_s - CLOCKS_S:
                continue
            job = self.job(ask, str(said["jobID"]))
            if job.inputs() == dict(ask.inputs):
                return job
        return None

    def call(self, call: Callable[[], T], ask: Ask, *, job: bool = False) -> T:
        """What a call of the client gives; its errors as ours.

        Parameters
        ----------
        job
            The call is about a job: that it is not found means that it is gone.
        """
        import requests
        from ecmwf.datastores.processing import LinkError

        try:
            with self._lock:
                self._keep_quiet()
                return call()
        except (LinkError, KeyError, AssertionError) as error:
            raise SourceError(
                f"{self._name} answered in a way that its client does not understand "
                f"({type(error).__name__}: {error}): update ecmwf-datastores-client"
            ) from error
        except requests.HTTPError as error:
            if error.response is None:
                raise SourceUnavailable(self._scrubbed(f"{self._name}: {error}")) from error
            raise self._refusal(error.response, ask, job) from error
        except requests.exceptions.SSLError as error:
            raise SourceError(
                self._scrubbed(f"{self._name} has a certificate that can't be trusted: {error}")
            ) from error
        except requests.exceptions.JSONDecodeError as error:
            raise SourceUnavailable(
                f"{self._name} answered with what is no JSON: perhaps it is being maintained, or a "
                "proxy answered"
            ) from error
        except requests.RequestException as error:
            raise SourceUnavailable(
                self._scrubbed(f"{self._name} does not answer ({_plain(error)})")
            ) from error

    def _keep_quiet(self) -> None:
        """Refuse to ask before the time that the service has said: the limit is the user's."""
        left = self._quiet_until_s - time.monotonic()
        if left > 0.0:
            raise SourceUnavailable(
                f"{self._name} wants {left:.0f} s without calls", retry_after_s=left
            )

    @property
    def _name(self) -> str:
        return f"the Climate Data Store ({urlsplit(self._who.url).netloc})"

    def _scrubbed(self, text: str) -> str:
        return text.replace(self._who.key, "***")

    def _open(self) -> Client:
        """The client; called with the lock held."""
        if self._client is None:
            from ecmwf.datastores import Client

            with warnings.catch_warnings():
                # It warns where it can't get the service's announcements: nothing depends on them.
                warnings.simplefilter("ignore")
                self._client = Client(
                    url=self._who.url,
                    key=self._who.key,
                    timeout=TIMEOUT_S,
                    progress=False,
                    maximum_tries=1,
                    log_callback=self._log,
                )
        return self._client

    def _log(self, level: int, message: object, *_: object, **__: object) -> None:
        LOGGER.debug("data store: %s", self._scrubbed(f"{level} {message}"))

    def _process(self, ask: Ask) -> Process:
        process = self._processes.get(ask.collection)
        if process is None:
            process = self._open().get_process(ask.collection)
            self._processes[ask.collection] = process
        return process

    def _refusal(
        self, response: requests.Response, ask: Ask, job: bool
    ) -> SourceError | SourceUnavailable:
        """What an answer that is an error means."""
        status, title, detail = _said(response)
        words = self._scrubbed(": ".join(filter(None, [title, detail])) or f"status {status}")
        if status in BUSY:
            wait_s = retry_after_s(response)
            self._quiet_until_s = time.monotonic() + (wait_s or 0.0)
            return SourceUnavailable(
                f"{self._name} answered {status}: {words}", retry_after_s=wait_s
            )
        if status == 401:
            return NotServed(
                "key",
                f"{self._name} does not take the key in {self._who.where}: open {PROFILE} and copy "
                "it again",
            )
        if "licence" in title:
            found = re.search(r"https?://\S+", detail)
            page = found[0] if found else self._page(ask.collection)
            return NotServed(
                "licence", f"the licence of {ask.collection} is not accepted: open {page}, once"
            )
        if "cost limits exceeded" in title:
            return TooLarge(f"{ask.collection} for {ask.label} is too large: {words}")
        if status == 404 and job:
            return Gone(f"{self._name} does not know a request any more: {words}")
        if status == 404:
            return NotServed("dataset", f"{self._name} has no {ask.collection}: {words}")
        if status == 403:
            return NotServed("dataset", f"{self._name} does not give {ask.collection}: {words}")
        return _Refused(
            f"{self._name} refuses {ask.collection} for {ask.label} ({status}): {words}", words
        )

    def _page(self, collection: str) -> str:
        site = self._who.url.removesuffix("/api")
        return f"{site}/datasets/{collection}?tab=download#manage-licences"


class _Refused(SourceError):
    """The service refuses a request, or says why one has failed."""

    def __init__(self, message: str, words: str) -> None:
        super().__init__(message)
        self.words = words


def retry_after_s(response: requests.Response) -> float | None:
    """When a service wants to be asked again [s]; None: it does not say."""
    wait = response.headers.get("Retry-After", "")
    return float(wait) if wait.isdigit() else None


def _said(response: requests.Response) -> tuple[int, str, str]:
    """Status, title and detail of an error (RFC 7807, as the service writes it)."""
    try:
        said: Any = response.json()
    except ValueError:
        said = {}
    if not isinstance(said, dict):
        said = {}
    detail = " ".join(str(said[name]) for name in ("traceback", "detail") if said.get(name))
    return response.status_code, str(said.get("title", "")), " ".join(detail.split())


def _instant(said: Mapping[str, Any]) -> float:
    """When a job was made [s since 1970]."""
    from ecmwf.datastores.utils import string_to_datetime

    return string_to_datetime(str(said["created"])).timestamp()


def _plain(error: Exception) -> str:
    """The last of a chain of reasons, without objects' addresses."""
    reason: BaseException = error
    while reason.__context__ is not None:
        reason = reason.__context__
    return re.sub(r"<[^>]*>:? ?", "", str(reason)).strip() or type(reason).__name__
