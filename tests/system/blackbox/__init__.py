"""The black-box checker: does every phone get the truth, the whole truth, in order, whatever breaks?

Three logs are written while a deployment is made to suffer, and judged afterwards:

- the truth of the simulated exchange: every change of every account and every answer it gave;
- what happened to each client: light ones in a process of their own and a few official ones in node;
- the faults that were done.

One run::

    from tests.system.blackbox import ChaosRun

    def test_R4_a_cut_bus(tmp_path):
        with ChaosRun(tmp_path, users=12, clients_per_user=2, changes_per_s=20, seed=4) as run:
            for _ in range(3):
                run.random_moment()
                run.fault("R4", "bus", lambda: kill_subscribers(run.stack))       # or with heal=… and hold_s=…
                run.wait_caught_up(15)             # load going on: everybody shows what is true now or newer
            run.settle(20)                         # load stopped: everybody shows the last state (a checkpoint)
            assert not run.verdicts(), run.report()
            assert run.figures().faults[0].reconvergence_s.max <= 3.0, run.report()

``run.stack`` is the ``Stack``, ``run.exchange`` the ``SimControl``, ``run.chance`` the seeded chance, ``run.clients``
takes the orders of recorder.py (``run.clients.order(drop=[1, 2])``). A fault that lasts while other things are
done is a block: ``with run.during("E2", "exchange", ban=True, blocks=frozenset(TYPES)): …``. Its marks tell the
judges what to expect: ``gap`` (bus messages may be lost; the default for every kind that begins with R), ``ban``,
``blocks`` and ``users`` (these types of these users cannot be read: their clients must be told).

Several rows of the fault matrix may share one deployment: ``with row(run, within_s=5.0) as found: …`` judges each by
its own part of the logs and prints how long the recovery from each fault took.

``judge(logs)`` and ``measure(logs)`` are pure; the verdicts are ``invented``, ``foreign``, ``regressed``,
``repeated``, ``unsolicited``, ``missing_final``, ``silent_stale``, ``over_budget``, ``double_fetch`` and
``secret_seen``.
"""

from tests.system.blackbox.figures import Aftermath, Figures, Spread, measure
from tests.system.blackbox.logs import TYPES, Answer, Change, Checkpoint, Entry, Fault, Logs
from tests.system.blackbox.rows import Row, row
from tests.system.blackbox.rules import Finding, Rules
from tests.system.blackbox.run import ChaosRun
from tests.system.blackbox.verdicts import VERDICTS, count, judge

__all__ = [
    "TYPES", "VERDICTS", "Aftermath", "Answer", "Change", "ChaosRun", "Checkpoint", "Entry", "Fault", "Figures",
    "Finding", "Logs", "Row", "Rules", "Spread", "count", "judge", "measure", "row",
]  # fmt: skip
