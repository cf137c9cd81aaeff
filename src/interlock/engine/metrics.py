"""Every metric there is; the reference and the tests read this list, and nothing else is counted."""

from __future__ import annotations

from typing import get_args

from interlock.core.approval import ApprovalKind
from interlock.core.meter import HOURS, Metric
from interlock.core.run import FINAL_STATES, OPEN_STATES, RunState

STATES = tuple(state.value for state in RunState)
OPEN = tuple(state.value for state in RunState if state in OPEN_STATES)
FINAL = tuple(state.value for state in RunState if state in FINAL_STATES)
OUTCOMES = ("permit", "needs_approval", "forbid")
ERROR_KINDS = ("invalid", "not_found", "denied", "conflict", "stale", "transient", "permanent")
ANSWERS = ("ok", *ERROR_KINDS, "bug")
ASKED = (*STATES, "proposed", "repeated", *ERROR_KINDS)
DIRECTIONS = ("do", "undo")
RESULTS = ("ok", "failed", "retry")
VERDICTS = ("yes", "no")
SCHEDULED = ("submitted", "succeeded", "failed", "denied", "missed", "skipped")
COMPONENTS = ("database", "disk", "keys", "listener", "policies", "reconcilers", "sealer", "workers")
SPAN_ENDS = ("sent", "dropped", "failed")

ASKS = Metric(
    "interlock_asks_total",
    "counter",
    "Asks that came through the door, by what became of them at once: the state of their Run, a plan that was only"
    " shown, a Run that this key had already, or the kind of the error.",
    {"action": None, "outcome": ASKED},
)
ASK_SECONDS = Metric("interlock_ask_seconds", "histogram", "From an ask to its answer: planned, decided and recorded.")
PLAN_SECONDS = Metric("interlock_plan_seconds", "histogram", "How long it took to make a plan.", {"action": None})
DECIDE_SECONDS = Metric("interlock_decide_seconds", "histogram", "How long policy took to decide.")
RECORD_SECONDS = Metric("interlock_record_seconds", "histogram", "How long it took to write an ask down.")
DECISIONS = Metric("interlock_decisions_total", "counter", "Decisions on asks.", {"outcome": OUTCOMES})
DECISIONS_BY_POLICY = Metric(
    "interlock_decisions_by_policy_total",
    "counter",
    "Decisions on asks in which a policy had a say; one decision counts for each policy that it names.",
    {"policy": None, "outcome": OUTCOMES},
)
VERDICTS_GIVEN = Metric(
    "interlock_verdicts_total",
    "counter",
    "Words of people on Runs that waited for them.",
    {"kind": get_args(ApprovalKind), "verdict": VERDICTS},
)
VERDICT_SECONDS = Metric(
    "interlock_verdict_wait_seconds", "histogram", "From an ask to a person's word on it.", buckets=HOURS
)
WAITING = Metric("interlock_approvals_waiting", "gauge", "Runs that wait for a person.")
WAITING_AGE = Metric(
    "interlock_approval_oldest_age_seconds", "gauge", "How long the oldest of them waits; 0 when none does."
)
RUNS_OPEN = Metric(
    "interlock_runs_open", "gauge", "Runs that are not over, in the tables.", {"action": None, "state": OPEN}
)
RUNS_CLOSED = Metric(
    "interlock_runs_closed_total",
    "counter",
    "Runs that this process brought to an end.",
    {"action": None, "state": FINAL},
)
RUNS_UNRESOLVED = Metric(
    "interlock_runs_unresolved_total", "counter", "Runs of which nobody knows where they stand.", {"action": None}
)
RUN_SECONDS = Metric(
    "interlock_run_seconds",
    "histogram",
    "From an ask to the end of its Run, what it waited for people included.",
    {"action": None},
    (0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5, 10, 60, 300, 1800, 4 * 3600, 24 * 3600),
)
RUNNING = Metric("interlock_runs_here", "gauge", "Runs that this process performs now.")
STEP_SECONDS = Metric(
    "interlock_step_seconds", "histogram", "One attempt at a step, its check included.", {"action": None}
)
STEPS = Metric(
    "interlock_steps_total",
    "counter",
    "Attempts at steps, forward or back; `retry` is one that may be tried again.",
    {"action": None, "direction": DIRECTIONS, "result": RESULTS},
)
RETRIES = Metric("interlock_step_retries_total", "counter", "Steps that are tried once more.", {"action": None})
QUEUE = Metric("interlock_queue_runs", "gauge", "Runs that wait for a worker or for their targets.")
QUEUE_AGE = Metric("interlock_queue_oldest_age_seconds", "gauge", "How long the one that is due first is due.")
QUEUE_SECONDS = Metric("interlock_queue_wait_seconds", "histogram", "From being due to being taken by a worker.")
LEASES_LOST = Metric("interlock_leases_lost_total", "counter", "Runs that another worker took from this one.")
TAKEOVERS = Metric("interlock_takeovers_total", "counter", "Runs that this worker took from one that died.")
ABANDONED = Metric(
    "interlock_runs_abandoned_total", "counter", "Runs that were let go because the database did not answer."
)
EVIDENCE = Metric("interlock_evidence_rows_total", "counter", "Rows of evidence that this process wrote.")
SEALED = Metric("interlock_evidence_sealed_rows", "gauge", "Rows under the last checkpoint.")
UNSEALED = Metric("interlock_evidence_unsealed_rows", "gauge", "Rows under no checkpoint yet; counted up to 10,000.")
SEAL_LAG = Metric(
    "interlock_seal_lag_seconds", "gauge", "Since the last checkpoint, while rows wait for the next; otherwise 0."
)
CHECKPOINT_AGE = Metric("interlock_checkpoint_age_seconds", "gauge", "Since the last checkpoint; 0 before the first.")
RECONCILED = Metric("interlock_reconciler_runs_total", "counter", "Turns of what runs on a timer.", {"work": None})
RECONCILER_FAILURES = Metric(
    "interlock_reconciler_failures_total", "counter", "Turns of what runs on a timer that failed.", {"work": None}
)
TROUBLES = Metric("interlock_troubles", "gauge", "What needs somebody, as `status` lists it.")
SCHEDULE_INSTANTS = Metric(
    "interlock_schedule_instants_total",
    "counter",
    "Instants of schedules, by what became of them.",
    {"state": SCHEDULED},
)
DATABASE_UP = Metric("interlock_database_up", "gauge", "Whether the database answered the last time it was asked.")
POOL_SIZE = Metric("interlock_database_pool_connections", "gauge", "Connections to the database.")
POOL_IDLE = Metric("interlock_database_pool_idle_connections", "gauge", "Connections that nobody uses.")
POOL_WAITING = Metric("interlock_database_pool_waiting", "gauge", "Who waits for a connection now.")
POOL_REQUESTS = Metric("interlock_database_pool_requests_total", "counter", "Times a connection was asked for.")
POOL_WAITS = Metric("interlock_database_pool_waits_total", "counter", "Times somebody had to wait for one.")
POOL_WAIT_SECONDS = Metric("interlock_database_pool_wait_seconds_total", "counter", "How long they waited in all.")
POOL_ERRORS = Metric("interlock_database_pool_errors_total", "counter", "Times nobody got one.")
POOL_LOST = Metric("interlock_database_pool_connections_lost_total", "counter", "Connections that broke.")
REQUESTS = Metric(
    "interlock_requests_total",
    "counter",
    "Requests at the local socket, those of the HTTP front among them.",
    {"method": None, "outcome": ANSWERS},
)
CONNECTIONS = Metric("interlock_connections", "gauge", "Clients that are connected to the local socket.")
FRONT_UP = Metric("interlock_http_front_up", "gauge", "Whether the process that answers HTTP lives.")
FRONT_STARTS = Metric("interlock_http_front_starts_total", "counter", "Times that process was started.")
GUARDS = Metric("interlock_guards", "gauge", "Guards that watch over a program now.")
HEALTHY = Metric(
    "interlock_component_healthy",
    "gauge",
    "Whether a component was sound when health was asked for last.",
    {"component": COMPONENTS},
)
DISK_FREE = Metric("interlock_state_folder_free_bytes", "gauge", "What is free where the state folder lies.")
SPANS = Metric(
    "interlock_trace_spans_total", "counter", "Parts of traces, by whether they were sent.", {"end": SPAN_ENDS}
)
INFO = Metric("interlock_build_info", "gauge", "Always 1; its labels say what runs.", {"version": None})

METRICS: tuple[Metric, ...] = tuple(value for value in list(globals().values()) if isinstance(value, Metric))
