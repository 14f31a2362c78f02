// The whole CPU kernel library: what an emitted kernel file includes.
#pragma once
#include "attention.h"
#include "gemm_nt.h"
#include "gemm_tn.h"
#include "heads.h"
#include "latent.h"
#include "optimizer.h"
#include "patchify.h"
#include "pointwise.h"
#include "reduce.h"
#include "row.h"
