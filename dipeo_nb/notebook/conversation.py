"""The former place of `notebook.transcript`, kept for one release."""

from dipeo_nb.common.moved import moved_names

__getattr__ = moved_names(
    __name__,
    {
        "Conversation": "dipeo_nb.notebook.transcript:Transcript",
        "Turns": "dipeo_nb.notebook.transcript",
    },
)
