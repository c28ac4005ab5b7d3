#!/bin/bash
# Pretrain in one job, sweep when it has succeeded: slurm/pretrain_then_sweep.sh
#
# Edit: the two command lines. The first run makes the source run, which lies in the shared cache and
# serves every arm that needs it; if that fails, the sweep never starts. Partition, account and time
# are in run.sbatch and sweep.sbatch.
set -eu
here=$(cd "$(dirname "$0")" && pwd)

first=$(sbatch --parsable "$here/run.sbatch" \
  source=glyphs target=digits target.shots=5 strategy=fine_tune seed=0 name=pretrain)
second=$(sbatch --parsable --dependency="afterok:$first" --kill-on-invalid-dep=yes \
  "$here/sweep.sbatch" -m source=glyphs target=digits target.shots=5,20 \
  strategy=scratch,feature_extraction,fine_tune seed=0,1,2,3,4 name=letters)
echo "job $first pretrains, job $second sweeps after it"
