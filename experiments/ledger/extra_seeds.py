"""More seeds for what is not decided: which runs come next."""

from experiments.ledger.evidence import Evidence, side
from experiments.ledger.verdicts import INCONCLUSIVE, NOT_RUN, Verdict
from experiments.sweeps.grid import Job


def next_seeds(verdicts: list[Verdict], evidence: Evidence, experiments: list[str]) -> list[Job]:
    """For every comparison of these experiments that does not decide its claim yet, the runs of its next seed.

    A comparison with no seed left in the evidence gets none.
    """
    found: dict[Job, None] = {}
    for verdict in verdicts:
        for finding in verdict.findings:
            comparison = finding.comparison
            open_yet = comparison.decides and finding.verdict in (INCONCLUSIVE, NOT_RUN)
            if not open_yet or comparison.experiment not in experiments:
                continue
            sides = [side(comparison, comparison.treatment, evidence)]
            if comparison.control:
                sides.append(side(comparison, comparison.control, evidence))
            lacking = [job for pairs in sides for jobs in pairs.values() for job in jobs if not evidence[job].finished]
            first = min((job.seed for job in lacking), default=None)
            found |= {job: None for job in lacking if job.seed == first}
    return list(found)
