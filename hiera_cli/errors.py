"""What can go wrong, as one family of exceptions. The command layer alone turns them into text and exit statuses.

Every message says what was being done and to what; `hint` says what the user can do next. Where that is an option or a
command, only the command layer knows what it is called: an error names a `remedy` then, which has its words in
commands/remedies.py.
"""


class HieraError(Exception):
    """Anything this package raises on purpose."""

    def __init__(self, message: str, hint: str = "", *, remedy: str = "", **about: object) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.remedy = remedy
        self.about = about  # what the words of the remedy are filled with


class UsageError(HieraError):
    """The request itself makes no sense: contradicting options, a bad value."""


class CheckpointError(HieraError):
    """The weights are not available, are damaged, or are not those of the model that is asked for."""


class DeviceError(HieraError):
    """The device or the precision that was asked for is not available, or it failed."""


class OutputError(HieraError):
    """The results can't be written."""


class InputError(HieraError):
    """One input has no label. It becomes an error record, named after its class, and the rest go on."""


class NotFoundError(InputError):
    """Nothing is there."""


class ReadError(InputError):
    """It is there and can't be read: permissions, a device, a broken disk."""


class DecodeError(InputError):
    """Its bytes are no image that can be decoded."""


class TooLargeError(InputError):
    """It is larger than the limit that was set for it, in pixels or bytes."""


class FetchError(InputError):
    """A URL gave no image: connection, status, time limit, scheme."""


class InferenceError(InputError):
    """The model gave no answer for it."""


class CrashError(InputError):
    """It ended the process that read it, by a fault of its decoder's or for want of memory."""


_NO_MEMORY = (
    "out of memory",
    "can't alloc",
    "cannot allocate",
    "failed to allocate",
    "not enough memory",
    "bad_alloc",
    "could not create a primitive",  # oneDNN's, where the same layer worked with fewer images
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out, a GPU's or the machine's, in the words of any engine."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(words in text for words in _NO_MEMORY)
