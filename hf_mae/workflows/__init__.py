"""The commands, one module per command. Each function takes the flags of its command as keyword arguments.

A function logs its steps, prints nothing, and returns a `RunRecord` or a small result object. A notebook gets the
same run as the shell. The package exports all of them:

    from hf_mae import finetune

    record = finetune(model_name_or_path="checkpoint.pth", data_dir="images", output_dir="runs/first")
    print(record.scores["validation"]["macro_f1"])
"""
