"""`audit.json`, what an audit of labels has found. Snakemake's own process reads it: nothing slow is imported."""

from pydantic import Field

from rewardline.evaluation.results import Count, Name, Number, ResultFile


class AuditResult(ResultFile):
    """The content of `audit.json`.

    `n` labels of `mixture` were judged by as many models as `folds`, trained as `run`; about `wrong` of them are
    estimated to be wrong, and `contradicted` are by the models. `unscored`: training pairs that no model scored, such
    as ties.
    """

    content = "an audit of labels"
    stage = "audit_labels"

    name: Name
    mixture: Name
    run: Name
    folds: Count
    n: Count
    wrong: Number
    contradicted: Count
    unscored: Count = Field(0)

    def line(self) -> str:
        """What was found, and what was not judged, in a sentence."""
        found = f"about {self.wrong:,.0f} of {self.n:,} training labels of {self.mixture} are wrong"
        unscored = f"; {self.unscored:,} pairs were not judged" if self.unscored else ""
        return f"{self.name}: {found}, {self.contradicted:,} are contradicted by the models{unscored}"
