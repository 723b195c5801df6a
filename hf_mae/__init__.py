"""Fine-tune masked autoencoder (MAE) checkpoints for image classification with stock transformers models.

`import hf_mae` imports neither torch nor transformers; they are imported with the first name that needs them.
"""

from ._lazy import exports

__version__ = "0.1.0"

__all__, __getattr__, __dir__ = exports(
    __name__,
    {
        "ClassificationMetrics": "evaluation.hf_evaluate",
        "FinetuningArguments": "settings.arguments",
        "MaeFinetuner": "training.finetuner",
        "MaePretrainer": "training.pretrainer",
        "PretrainingArguments": "settings.arguments",
        "RunRecord": "reporting.notebook",
        "UsageError": "errors",
        "audit": "workflows.audit",
        "cache": "workflows.cache",
        "build_classifier": "models.building",
        "build_pretrainer": "models.building",
        "compare": "reporting.report",
        "convert": "workflows.convert",
        "crossval": "workflows.crossval",
        "distill": "workflows.distill",
        "ensemble": "workflows.ensemble",
        "evaluate": "workflows.evaluate",
        "explain": "workflows.explain",
        "export": "workflows.export",
        "export_onnx": "workflows.export_onnx",
        "finetune": "workflows.finetune",
        "load_image_folder": "data.sources.folders",
        "open_demo": "workflows.demo",
        "plan": "workflows.plan",
        "parameter_groups": "training.layer_decay",
        "predict": "workflows.predict",
        "prepare": "workflows.prepare",
        "pretrain": "workflows.pretrain",
        "probe": "workflows.probe",
        "push": "workflows.push",
        "push_dataset": "workflows.push_dataset",
        "shard": "workflows.shard",
        "read_record": "reporting.notebook",
        "reconstruct": "workflows.reconstruct",
        "report": "workflows.report",
        "search": "workflows.search",
    },
)
