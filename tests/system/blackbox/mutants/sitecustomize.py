"""Breaks the product on purpose, in processes that are started with this folder on PYTHONPATH.

The environment variable ``PUSHSERVER_MUTANT`` names the mutation; each breaks one of the rules that the delivery
promise rests on. A mutation is applied right after its module was loaded and fails loudly when the product does not
look as it expects, so that no mutant becomes harmless unnoticed.
"""

import importlib.abc
import importlib.machinery
import os
import sys

SLOW_STEP_S = 0.15


def no_as_of_check(scripts):
    """An answer that is older than what is stored replaces it, whichever round brings it."""
    _change_commit(scripts, lambda text: _replaced(text, "fenced or as_of < confirmed", "false"))


def publish_before_store(scripts):
    """A state is sent to the phones first and stored a moment later."""
    import time

    load = scripts.load
    store = "redis.call('HSET', key, 'digest', update.digest, 'as_of', shown, 'confirmed', confirmed, 'seq', seq"
    storing = "redis.call('HSET', KEYS[1], 'digest', ARGV[1], 'as_of', ARGV[2], 'confirmed', ARGV[2], 'seq', ARGV[10], "
    storing += "'frame', ARGV[4] .. ARGV[10] .. ARGV[5]) return 1"

    def load_in_two_steps(client, *names):
        script = load(client, *names)
        if names[-1] != "commit":
            return script
        publish = scripts.Script(client, _replaced(script._text, store, "local nothing = (function() end)('frame'"))
        later = scripts.Script(client, storing)

        class InTwoSteps:
            sha = script.sha

            def __call__(self, keys, args):
                answer = publish(keys=keys, args=args)
                if answer[0] == b"published":
                    time.sleep(SLOW_STEP_S)
                    later(keys=keys, args=[*args, answer[1]])
                return answer

            def pipelined(self, calls):
                return [self(keys, args) for keys, args in calls]

        return InTwoSteps()

    scripts.load = load_in_two_steps


def snapshot_before_subscribe(deliveries):
    """The stored state is read before the channel is subscribed: what is published in between is lost."""
    import copy

    import gevent

    kind = deliveries.Deliveries
    subscribe, send_stored = kind.subscribe, kind.send_stored
    early = {}

    class ReadEarly:
        def __init__(self, states):
            self._states = states

        def read(self, wanted):
            known = [early.pop(key, None) for key in wanted]
            return self._states.read(wanted) if None in known else known

    def subscribe_late(self, phone, data_types):
        wanted = [(phone.user_id, data_type) for data_type in data_types]
        early.update(zip(wanted, self._states.read(wanted), strict=True))
        gevent.sleep(SLOW_STEP_S)
        return subscribe(self, phone, [data_type for _, data_type in wanted])

    def send_early(self, phone, data_types, since=None):
        reading_early = copy.copy(self)
        reading_early._states = ReadEarly(self._states)
        return send_stored(reading_early, phone, data_types, since)

    kind.subscribe, kind.send_stored = subscribe_late, send_early


def no_reread(deliveries):
    """After the bus was lost nobody looks what was missed."""
    assert callable(deliveries.Deliveries.reread)
    deliveries.Deliveries.reread = lambda self: None


def remembered_although_not_published(states):
    """A push worker takes a state that it could not commit for committed, and never tries it again."""
    kind = states.States
    commit_one, commit_several = kind.commit, kind.commit_many
    last = {}

    def is_known(wanted):
        known = last.get((wanted.user_id, wanted.data_type)) == wanted.update.digest
        last[wanted.user_id, wanted.data_type] = wanted.update.digest
        return known

    def commit(self, *args, **options):
        known = is_known(states.Commit(*args, **options))
        return states.CommitResult("unchanged", 0, 0) if known else commit_one(self, *args, **options)

    def commit_many(self, commits):
        known = [is_known(wanted) for wanted in commits]
        unknown = [wanted for wanted, is_old in zip(commits, known, strict=True) if not is_old]
        done = iter(commit_several(self, unknown) if unknown else [])
        return [states.CommitResult("unchanged", 0, 0) if is_old else next(done) for is_old in known]

    kind.commit, kind.commit_many = commit, commit_many


MUTANTS = {
    "no_as_of_check": ("pushserver.bus.scripts", no_as_of_check),
    "publish_before_store": ("pushserver.bus.scripts", publish_before_store),
    "snapshot_before_subscribe": ("pushserver.web.deliveries", snapshot_before_subscribe),
    "no_reread": ("pushserver.web.deliveries", no_reread),
    "remembered_although_not_published": ("pushserver.bus.states", remembered_although_not_published),
}


def _replaced(text, old, new):
    assert text.count(old) == 1, f"the product's script does not contain {old!r} once"
    return text.replace(old, new)


def _change_commit(scripts, change):
    load = scripts.load

    def changed(client, *names):
        script = load(client, *names)
        return scripts.Script(client, change(script._text)) if names[-1] == "commit" else script

    scripts.load = changed


class _Mutator(importlib.abc.MetaPathFinder):
    """Applies the mutation each time its module is loaded; web workers import the product anew after their fork."""

    def __init__(self, module, mutate):
        self._module, self._mutate = module, mutate

    def find_spec(self, name, path=None, target=None):
        if name != self._module:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        execute = spec.loader.exec_module

        def execute_and_mutate(module):
            execute(module)
            self._mutate(module)
            print(f"mutated {name}: {os.environ['PUSHSERVER_MUTANT']}", file=sys.stderr)

        spec.loader.exec_module = execute_and_mutate
        return spec


if os.environ.get("PUSHSERVER_MUTANT"):
    sys.meta_path.insert(0, _Mutator(*MUTANTS[os.environ["PUSHSERVER_MUTANT"]]))
