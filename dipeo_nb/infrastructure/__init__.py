"""Deprecated: import paths of DiPeO's infrastructure layer; each says where its module is now. Kept for imports of old."""

from dipeo_nb.common.moved import MovedModules

MovedModules(
    __name__,
    {
        "config": "dipeo_nb.config",
        "codegen.parsers.parser_service": "dipeo_nb.codegen.services",
        "codegen.parsers.typescript.parser": "dipeo_nb.codegen.typescript.parser",
        "codegen.templates.drivers.template_service": "dipeo_nb.codegen.templates",
        "codegen.ir_registry": "dipeo_nb.codegen.ir.registry",
        "codegen.ir_cache": "dipeo_nb.codegen.ir.cache",
        "events": "dipeo_nb.events",
        "common.utils.cache": "dipeo_nb.common.cache",
        "common.utils.locks": "dipeo_nb.common.locks",
        "storage.local": "dipeo_nb.storage.local",
        "storage.cloud": "dipeo_nb.storage.cloud",
        "storage.artifacts": "dipeo_nb.storage.artifacts",
        "storage.conversation": "dipeo_nb.storage.conversation",
        "storage.json_db": "dipeo_nb.storage.json_db",
        "database": "dipeo_nb.storage.json_db",
        "diagram.drivers": "dipeo_nb.storage.diagrams",
        "diagram.prompt_templates.prompt_builder": "dipeo_nb.diagram.prompts",
        "diagram.prompt_templates.simple_processor": "dipeo_nb.diagram.templates",
        "security.keys": "dipeo_nb.security.keys",
        "llm.core.types": "dipeo_nb.llm.core.types",
        "llm.adapters": "dipeo_nb.llm.adapters",
        "llm.drivers.factory": "dipeo_nb.llm.providers",
        "llm.providers.openai.unified_client": "dipeo_nb.llm.providers.openai",
        "llm.providers.anthropic.unified_client": "dipeo_nb.llm.providers.anthropic",
        "llm.providers.google.unified_client": "dipeo_nb.llm.providers.google",
        "llm.providers.ollama.unified_client": "dipeo_nb.llm.providers.ollama",
        "llm.providers.claude_code.unified_client": "dipeo_nb.llm.providers.claude_code",
    },
).install()
