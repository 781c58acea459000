"""The workers of a run: one on each node of the cluster, or one for each of its GPUs, and those of nodes that join."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from queue import Empty, SimpleQueue
from time import monotonic, sleep
from typing import Any

import hiera_cli
from hiera_cli import __version__
from hiera_cli.checkpoints.labels import Label
from hiera_cli.cluster.connection import Connection, answers, connect
from hiera_cli.cluster.ledger import AT_ONCE, Block
from hiera_cli.cluster.worker import NOT_SEEN, Job, Loaded, ModelJob, Node, Worker
from hiera_cli.errors import HieraError
from hiera_cli.system.patience import told_if_slow

MOMENT, SOON = 3.0, 0.2  # seconds, while no core is free
LOOK_EVERY = 2.0  # seconds: for nodes that have joined
PATIENCE = 15.0  # seconds: how long a node is waited for that others are ready before
GONE = 8.0  # seconds without an answer of the cluster
JOINING = 10.0  # seconds until it is told that the cluster has not let this machine in yet
NODE_ANSWERS = 2.0  # seconds that a node has for that
ASKED = 10.0  # seconds that a worker has for a short answer
FAILURES = 3  # of workers on one node that did not get as far as their model: then it is left out


@dataclass(frozen=True)
class _Engine:
    """As commands describe the engine of a model."""

    precision: str
    batch_size: int
    words: str

    def describe(self) -> str:
        """On what it runs."""
        return self.words


@dataclass(frozen=True)
class _Checkpoint:
    """As commands describe a checkpoint, and hold records against it."""

    name: str
    weights: Path
    sha256: str

    def digest(self) -> str:
        """The sha256 of the weights' file."""
        return self.sha256


@dataclass(frozen=True)
class ClusterModel:
    """The model that the workers have loaded, as a run and its outputs ask of it."""

    name: str
    checkpoint: _Checkpoint
    engine: _Engine
    labels: tuple[Label, ...]


class _Slot:
    """A place for a worker: a node, or one GPU of it. actor: the one there is. failures: of those before it."""

    def __init__(self, node: str, host: str, address: str, *, gpus: int, place: int) -> None:
        self.node = node
        self.host = host
        self.address = address
        self.gpus = gpus  # of its node
        self.place = place  # among those of its node
        self.actor: Any = None
        self.about: Node | None = None
        self.asked_to_load = False
        self.loaded: Loaded | None = None
        self.failures = 0
        self.left_out = False

    @property
    def where(self) -> str:
        """Its node, for a person."""
        return f"{self.host}, {self.address}"


class Workers:
    """address, ship: of the cluster, and whether its nodes get this package from here. job: what each does.

    say: gets a line on each node that is left out.
    """

    def __init__(self, address: str, job: Job, *, ship: bool = False) -> None:
        self.job = job
        self.say: Callable[[str], None] = lambda line: None
        self.ready: list[_Slot] = []
        self.events: SimpleQueue[Any] = SimpleQueue()  # of replies: (slot, block, future)
        self._address = address
        self._ship = ship
        self._connection: Connection | None = None
        self._ray: Any = None
        self._actor: Any = None
        self._strategy: Any = None
        self._slots: dict[tuple[str, int], _Slot] = {}
        self._starting: SimpleQueue[tuple[_Slot, Any, Any]] = SimpleQueue()  # (slot, its actor, a future)
        self._model: ModelJob | None = None
        self._precision = ""
        self._digest = ""
        self._first_error: HieraError | None = None
        self._looked = self._began = 0.0
        self._is_deserted = False
        self._answered = monotonic()  # when the cluster did

    # ---- starting

    def load(
        self,
        model: str,
        *,
        engine: str,
        device: str,
        precision: str,
        batch_size: int | None,
        labels: bool = False,
        offline: bool = False,
        progress: object = None,
    ) -> ClusterModel:
        """Have the model loaded by every node of the cluster: of classifier.load_classifier the arguments and errors.

        Returns when the first of them is ready. Raises HieraError where none can be.
        """
        del progress  # of downloads: they go on elsewhere
        self._model = ModelJob(model, engine, device, precision, batch_size, labels, offline)
        package = Path(hiera_cli.__file__).parent
        with told_if_slow(JOINING, self.say, f"waiting for the cluster ({self._address}) to let this machine in"):
            self._connection = connect(self._address, {"py_modules": [str(package)]} if self._ship else None)
        self._ray = self._connection.ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        self._strategy = NodeAffinitySchedulingStrategy
        self._actor = self._ray.remote(Worker)
        self._began = monotonic()
        self._look_for_nodes()
        if not self._slots:
            what = f"GPU for {device}" if device.startswith("cuda") else "core for work"
            raise HieraError(f"no node of the cluster has a {what}", self._what_there_is())
        self._wait_for_a_core()
        while not self.ready:
            self._settle(wait=True)
            self.poll()
            if all(slot.left_out for slot in self._slots.values()):
                raise self._first_error or HieraError("no node of the cluster can do the work")
        return self._described()

    def _what_there_is(self) -> str:
        nodes = self._nodes().values()
        cores, gpus = (sum(int(node["Resources"].get(kind, 0)) for node in nodes) for kind in ("CPU", "GPU"))
        return f"What its nodes were started with: nodes {len(nodes)}, cores {cores}, GPUs {gpus}."

    def _wait_for_a_core(self) -> None:
        """Of a run that has just ended it takes a moment until it is free; of others it may take long."""
        is_told = False
        while not any(slot.actor for slot in self._slots.values()):
            if not is_told and monotonic() - self._began > MOMENT:
                self.say("no core of the cluster is free: waiting for one")
                is_told = True
            sleep(SOON)
            self._look_for_nodes()

    def _described(self) -> ClusterModel:
        loaded = self.ready[0].loaded
        assert loaded is not None
        slots = [slot for slot in self._slots.values() if not slot.left_out]
        nodes = len({slot.node for slot in slots})
        words = f"{loaded.engine}, on {nodes} node{'s' * (nodes != 1)} of a Ray cluster"
        if len(slots) != nodes:
            words += f", {len(slots)} workers"
        return ClusterModel(
            loaded.name,
            _Checkpoint(loaded.name, Path(loaded.weights), loaded.digest),
            _Engine(loaded.precision, loaded.batch_size, words),
            loaded.labels,
        )

    def _look_for_nodes(self) -> None:
        """Start a worker wherever there is a place for one and none."""
        self._looked = monotonic()
        assert self._model is not None
        if not self._cluster_answers():
            return
        nodes = self._nodes()
        for key in [key for key, slot in self._slots.items() if slot.node not in nodes and slot not in self.ready]:
            del self._slots[key]
        free: dict[str, dict[str, float]] | None = None
        for name, node in nodes.items():
            gpus = int(node["Resources"].get("GPU", 0)) if self._model.device in ("auto", "cuda") else 0
            if not gpus and (node["Resources"].get("CPU", 0) < 1 or self._model.device.startswith("cuda")):
                continue
            for place in range(max(1, gpus)):
                slot = self._slots.setdefault(
                    (name, place),
                    _Slot(name, node["NodeManagerHostname"], node["NodeManagerAddress"], gpus=gpus, place=place),
                )
                if slot.actor is None and not slot.left_out:
                    free = _free_resources() if free is None else free
                    self._start(slot, int(free.get(name, node["Resources"]).get("CPU", 0)))

    def _nodes(self) -> dict[str, Any]:
        """By their ids. The cluster takes up to a minute to notice that one is gone: those that it counts are asked."""
        known = {slot.node for slot in self.ready}
        return {
            node["NodeID"]: node
            for node in self._ray.nodes()
            if node["Alive"]
            and (node["NodeID"] in known or answers(node["NodeManagerAddress"], node["NodeManagerPort"], NODE_ANSWERS))
        }

    def _start(self, slot: _Slot, free_cores: int) -> None:
        """free_cores: of its node. Other work of the cluster keeps its own; a worker without a GPU waits for one."""
        if not slot.gpus and not free_cores:
            return
        cores = free_cores // max(1, slot.gpus)
        slot.actor = self._actor.options(
            num_cpus=cores,
            num_gpus=1 if slot.gpus else 0,
            max_concurrency=AT_ONCE + 1,  # one for `finish`
            max_restarts=0,
            scheduling_strategy=self._strategy(slot.node, soft=False),
        ).remote(self.job, cores)
        self._ask(slot, slot.actor.node.remote(self._model))

    def _ask(self, slot: _Slot, reference: Any) -> None:
        actor = slot.actor
        reference.future().add_done_callback(lambda future: self._starting.put((slot, actor, future)))

    def _settle(self, *, wait: bool) -> None:
        """Take what those that start have said."""
        try:
            slot, actor, future = self._starting.get(timeout=LOOK_EVERY) if wait else self._starting.get_nowait()
        except Empty:
            if wait:
                self._decide()
            return
        if slot.actor is not actor:
            return
        error = future.exception()
        if error is not None:
            self._failed(slot, self._in_words(slot, error), is_death=_is_death(error))
        elif isinstance(answer := future.result(), Node):
            if answer.version != __version__:
                told = HieraError(
                    f"the node {answer.host} has version {answer.version} of this program, this machine {__version__}",
                    remedy="ship",
                )
                self._failed(slot, told)
            else:
                slot.about = answer
        else:
            self._loaded(slot, answer)
        self._decide()

    def _decide(self) -> None:
        """Settle on one precision, so that a record is the same wherever it is made, and have it loaded."""
        assert self._model is not None
        slots = [slot for slot in self._slots.values() if slot.actor is not None]
        if not self._precision:
            known = {slot.about.precision for slot in slots if slot.about is not None}
            is_late = monotonic() - self._began > PATIENCE
            if not known or (any(slot.about is None for slot in slots) and not is_late):
                return
            self._precision = known.pop() if len(known) == 1 else "fp32"
        for slot in slots:
            first = self._slots.get((slot.node, 0), slot)  # which downloads what its node lacks
            is_first = first is slot or first.actor is None
            if slot.about is None or slot.asked_to_load or not (is_first or first.loaded):
                continue
            slot.asked_to_load = True
            self._ask(slot, slot.actor.load.remote(replace(self._model, precision=self._precision)))

    def _loaded(self, slot: _Slot, loaded: Loaded) -> None:
        self._digest = self._digest or loaded.digest
        if loaded.digest != self._digest:
            told = HieraError(
                f"the node {slot.host} has other weights of {loaded.name} "
                f"(sha256 {loaded.digest[:16]}…, others have {self._digest[:16]}…)",
                "Give all nodes the same, or name a folder that all of them see as the model.",
            )
            self._failed(slot, told)
            return
        slot.loaded = loaded
        slot.failures = 0
        self.ready.append(slot)

    def _failed(self, slot: _Slot, error: HieraError, *, is_death: bool = False) -> None:
        """Leave out what can't work, and say so. One that died is tried again some times, if its node is there."""
        slot.failures += 1
        if slot.actor is not None:
            self._ray.kill(slot.actor)
        slot.actor = slot.about = slot.loaded = None
        slot.asked_to_load = False
        if is_death and slot.failures < FAILURES:
            return
        if is_death and self._cluster_answers() and slot.node not in self._nodes():
            del self._slots[slot.node, slot.place]
            return
        slot.left_out = True
        self._first_error = self._first_error or error
        if any(not each.left_out for each in self._slots.values()):
            words = error.message.removeprefix(f"the node {slot.host} ")
            words = words if words == error.message else f"it {words}"
            self.say(f"a node is left out ({slot.where}): {words}")

    def _in_words(self, slot: _Slot, error: BaseException) -> HieraError:
        cause = getattr(error, "cause", None)
        if isinstance(cause, HieraError):
            elsewhere = f" (on the node {slot.host})" if slot.host != platform.node() else ""
            return type(cause)(f"{cause.message}{elsewhere}", cause.hint, remedy=cause.remedy, **cause.about)
        text = str(error)
        if "No module named 'hiera_cli" in text:
            return HieraError(f"the node {slot.host} does not have this program", remedy="ship")
        if "No module named" in text:
            missing = text.rpartition("No module named")[2].split()[0].strip("'\"")
            return HieraError(
                f"the node {slot.host} lacks the Python package {missing}", "`pip install hiera-cli` there brings it."
            )
        if _is_death(error):
            tokens = os.environ.get("RAY_AUTH_MODE") == "token"
            return HieraError(
                f"the worker on the node {slot.host} died before it had its model",
                "If the cluster was started without a token: RAY_AUTH_MODE=disabled hiera …" if tokens else "",
            )
        return HieraError(f"the node {slot.host} failed: {' '.join(text.split())[-300:]}")

    # ---- while the run goes on

    def poll(self) -> None:
        """See who has become ready, and whether nodes have joined."""
        while not self._starting.empty():
            self._settle(wait=False)
        if monotonic() - self._looked > LOOK_EVERY:
            self._look_for_nodes()
            self._decide()
        was, self._is_deserted = self._is_deserted, all(slot.left_out for slot in self._slots.values())
        if self._is_deserted and not was and self._digest:  # that is, once there was one
            self.say("no machine of the cluster is left: waiting for one to join")

    def _cluster_answers(self) -> bool:
        """Whether it does. Raises HieraError if it has not for some time: whoever asks it something waits long."""
        assert self._connection is not None
        try:
            self._connection.check()
            self._answered = monotonic()
        except HieraError as error:
            if monotonic() - self._answered < GONE:
                return False
            self._connection.drop()
            self._connection = None
            self.ready = []
            raise HieraError(error.message, remedy="go on") from error
        return True

    def give(self, slot: _Slot, block: Block) -> None:
        """Have a worker answer a block: `events` gets its reply."""
        reference = slot.actor.run.remote(block)
        reference.future().add_done_callback(lambda future: self.events.put((slot, block, future)))

    def lost(self, slot: _Slot) -> None:
        """A worker has died: another one is started where it was, if its node is still there."""
        self.say(f"a worker has died, or its node ({slot.where}): what it had is done again")
        self.ready.remove(slot)
        self._slots[slot.node, slot.place] = _Slot(slot.node, slot.host, slot.address, gpus=slot.gpus, place=slot.place)
        self._looked = 0.0

    def sees(self, slot: _Slot, path: str) -> bool:
        """Whether the node of a worker has something of this name; yes, if it does not say."""
        try:
            return bool(self._ray.get(slot.actor.sees.remote(path), timeout=ASKED))
        except Exception:  # it has died, which is told elsewhere
            return True

    def leave_out(self, slot: _Slot, why: str) -> None:
        """Have a worker do nothing more. why: what its node lacks. Raises HieraError if there is no other one."""
        self.ready.remove(slot)
        error = HieraError(f"the node {slot.host} {why}", NOT_SEEN)
        self._failed(slot, error)
        if all(each.left_out for each in self._slots.values()):
            raise self._first_error or error

    def fault(self, slot: _Slot, error: BaseException) -> HieraError | None:
        """What has gone wrong with a block, for which the run ends; None if its worker has died."""
        return None if _is_death(error) else self._in_words(slot, error)

    def finish(self) -> None:
        """Have all workers end soon what they are at."""
        for slot in self.ready:
            slot.actor.finish.remote()

    def close(self) -> None:
        """Leave the cluster, which ends the workers; one that was started here ends with that."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _is_death(error: BaseException) -> bool:
    from ray.exceptions import ActorUnschedulableError, RayActorError

    return isinstance(error, (RayActorError, ActorUnschedulableError)) and "failed to import" not in str(error)


def _free_resources() -> dict[str, dict[str, float]]:
    """What of each node is not in use. Ray tells of the whole cluster alone in public."""
    try:
        from ray._private.state import available_resources_per_node
    except ImportError:
        return {}
    found: dict[str, dict[str, float]] = available_resources_per_node()
    return found
