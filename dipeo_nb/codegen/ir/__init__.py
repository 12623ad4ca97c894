"""What a generator's templates are given: intermediate representations (IR) of parsed sources, built in steps."""

from dipeo_nb.common import lazy

__getattr__ = lazy.attributes(
    __name__,
    {
        "BackendIR": "model",
        "Build": "pipeline",
        "FrontendIR": "model",
        "IRBuilderRegistry": "registry",
        "IRBuilderService": "service",
        "IRCache": "cache",
        "IRData": "model",
        "Pipeline": "pipeline",
        "Step": "pipeline",
        "StrawberryIR": "model",
    },
)
