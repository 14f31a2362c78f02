// The whole CUDA kernel library.
#pragma once
#include "attention.cuh"
#include "attention_grad.cuh"
#include "call.cuh"
#include "data.cuh"
#include "dropout.cuh"
#include "gemm.cuh"
#include "math.cuh"
#include "optimizer.cuh"
#include "patchify.cuh"
#include "pointwise.cuh"
#include "reduce.cuh"
#include "row.cuh"
