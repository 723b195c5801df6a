#!/usr/bin/env bash
# Tries every file of accelerate_configs/ on the CPU, two processes each: bash scripts/smoke_configs.sh [CONFIG ...]
# A table of pass or fail with seconds; exit status 1 if any failed.
EXTRAS=test # with deepspeed
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
work="$(mktemp -d "${TMPDIR:-/tmp}/hf_mae_smoke.XXXXXX")"
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false OMP_NUM_THREADS=1 DS_ACCELERATOR=cpu
python "$ROOT/scripts/make_toy_data.py" "$work/data" --images 12 > /dev/null
hf-mae pretrain --recipe quickstart_pretrain --data_dir "$work/data/unlabelled" --output_dir "$work/pretrained" \
    --max_steps 1 --disable_tqdm true > "$work/pretrain.log" 2>&1 || { cat "$work/pretrain.log"; exit 1; }

failed=0
printf '%-12s %-6s %s\n' config result seconds
[[ $# -gt 0 ]] || set -- $(basename -s .yaml "$ROOT"/accelerate_configs/*.yaml)
for name in "$@"; do
    path="$ROOT/accelerate_configs/$name.yaml"
    processes=2
    [[ "$name" == cpu || "$name" == single_gpu ]] && processes=1
    nodes=()
    [[ "$name" == multi_node ]] && nodes=(--num_machines 1 --machine_rank 0)
    port="$(python -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')"
    started=$SECONDS
    result=pass
    # No mixed precision: bf16 and fp16 are for the GPUs that these files are written for.
    accelerate launch --config_file "$path" --num_processes $processes --main_process_port "$port" "${nodes[@]}" \
        --mixed_precision no -m hf_mae finetune --model_name_or_path "$work/pretrained" --data_dir "$work/data/labelled" \
        --output_dir "$work/$name" --max_steps 2 --per_device_train_batch_size 8 --report_to none --disable_tqdm true \
        > "$work/$name.log" 2>&1 || result=fail
    [[ $result == pass && ! -s "$work/$name/model.safetensors" ]] && result=fail
    printf '%-12s %-6s %d\n' "$name" $result $((SECONDS - started))
    if [[ $result == fail ]]; then
        failed=1
        tail -n 15 "$work/$name.log" | sed 's/^/    /'
    fi
done
[[ $failed -eq 0 ]] && rm -r "$work" || echo "Logs are in $work"
exit $failed
