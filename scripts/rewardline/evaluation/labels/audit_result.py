"""`audit.json`, what an audit of labels has found. Snakemake's own process reads it: nothing slow is imported."""

from pydantic import Field

from rewardline.evaluation.results import NAN, Count, Name, Number, ResultFile, Share

MANY = 0.2
"""With a greater share of wrong labels than this, sure mistakes of weak models are a likely reason too."""


class AuditResult(ResultFile):
    """The content of `audit.json`.

    `n` labels of `mixture` were scored by as many models as `folds`, trained as `run`; about `wrong` of them are
    estimated to be wrong, at least `wrong_low` (95%), and `contradicted` are by the models. `unscored`: training pairs
    that no model scored, such as ties. `agreement`, with its 95% interval: the share of labels that the models agree
    with. `unjudged`: why no label is judged, if so.
    """

    content = "an audit of labels"
    stage = "audit_labels"

    name: Name
    mixture: Name
    run: Name
    folds: Count
    n: Count
    wrong: Number
    wrong_low: Number = NAN
    contradicted: Count
    unscored: Count = Field(0)
    agreement: Share = NAN
    agreement_low: Share = NAN
    agreement_high: Share = NAN
    unjudged: str = ""

    @property
    def caution(self) -> str:
        """Why the judgement should not be trusted, or is not there; empty if nothing speaks against it."""
        if self.unjudged:
            return f"no label is judged, and mixtures of this audit keep all: {self.unjudged}"
        if self.wrong > MANY * self.n:
            return (
                f"the models agree with {self.agreement:.1%} of the labels: if they are weak rather than the labels "
                "wrong, most labels in doubt are right, as mistakes of models that are sure count as wrong labels; "
                "look at some before you use them"
            )
        return ""

    def line(self) -> str:
        """What was found, and what was not judged, in a sentence."""
        labels = f"{self.n:,} training labels of {self.mixture}"
        found = f"about {self.wrong:,.0f} of {labels} are wrong, {self.contradicted:,} are contradicted by the models"
        if self.unjudged:
            found = f"{self.contradicted:,} of {labels} are contradicted by the models"
        unscored = f"{self.unscored:,} pairs were not judged" if self.unscored else ""
        return f"{self.name}: " + "; ".join(filter(None, (found, unscored, self.caution)))
