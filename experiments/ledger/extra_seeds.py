"""Extra seeds for undecided comparisons."""

from experiments.ledger.evidence import Evidence, side
from experiments.ledger.verdicts import INCONCLUSIVE, NOT_RUN, Verdict
from experiments.sweeps.grid import Job


def next_seeds(verdicts: list[Verdict], evidence: Evidence, experiments: list[str]) -> list[Job]:
    """The runs of the next seed of every undecided comparison in these experiments.

    Only seeds that are in the evidence are considered.
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
            todo = [job for pairs in sides for jobs in pairs.values() for job in jobs if not evidence[job].finished]
            first = min((job.seed for job in todo), default=None)
            found |= {job: None for job in todo if job.seed == first}
    return list(found)
