"""Every way luma can fail, as one tree.

LumaError                  one line on stderr, exit 1
├── UsageError             the command was wrong, exit 2
│   ├── UnknownName        no such backbone, card, tag or device
│   ├── BadResolution      a size at which the backbone cannot be built
│   ├── BadBudget          a budget that cannot be read
│   ├── BadCard            a card, rule table, recipe or dataset file that does not parse
│   └── BadRecipe          a setting of training that is none, or two that contradict each other
├── WeightsError           weights missing, foreign or unsafe
├── StoreError             the database cannot be used as it is
├── BuildError             the backbone or head cannot be built
├── MeasureError           a measurement could not be made
├── DataError              a dataset is missing, incomplete or damaged
│   └── BadSample          one image or label file that cannot be used
├── RunError               a run cannot be started, found or resumed
│   └── CheckpointError    a checkpoint is missing, damaged or of another model
├── Diverged               training left the finite numbers; the last good state is kept
└── NoAnswer               nothing meets the budget, or no evidence
    └── NothingMeasured    a budget in time, memory or energy on a device of which nothing is known
"""


class LumaError(Exception):
    """A failure with a message for the user: what was given, what was expected, what to type next."""

    exit_code = 1


class UsageError(LumaError):
    """The command was wrong."""

    exit_code = 2


class UnknownName(UsageError):
    """No backbone, card, tag or device has this name."""


class BadResolution(UsageError):
    """The backbone cannot be built at this size."""


class BadBudget(UsageError):
    """A budget such as `200 bananas`."""


class BadCard(UsageError):
    """A card, rule table, recipe or dataset file that does not parse."""


class BadRecipe(UsageError):
    """A setting of training that is none, or two that contradict each other."""


class WeightsError(LumaError):
    """Weights that are missing, belong to another model or are unsafe to load."""


class StoreError(LumaError):
    """The database cannot be used as it is; it was left untouched."""


class BuildError(LumaError):
    """The backbone or head cannot be built."""


class MeasureError(LumaError):
    """A measurement could not be made."""


class DataError(LumaError):
    """A dataset is missing, incomplete or damaged."""


class BadSample(DataError):
    """One image or label file that cannot be used; the message names it."""


class RunError(LumaError):
    """A run cannot be started, found or resumed."""


class CheckpointError(RunError):
    """A checkpoint is missing, damaged or of another model."""


class Diverged(LumaError):
    """Training left the finite numbers; the last good state is kept."""


class NoAnswer(LumaError):
    """Nothing meets the budget, or there is no evidence to answer from."""


class NothingMeasured(NoAnswer):
    """A budget in time, memory or energy on a device of which nothing is known.

    name, resolution: what to measure first, because it tells most about all others.
    """

    def __init__(self, message: str, name: str, resolution: int) -> None:
        """The message for the user, and the backbone and size in pixels of the first measurement."""
        super().__init__(message)
        self.name = name
        self.resolution = resolution
