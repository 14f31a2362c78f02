// Scaled dot-product attention over whole sequences, forward and backward, each
// head by the way that suits its shape.
//
// One unit of work is a block of query rows of one head of one sample
// (forward), or a whole head (backward: its blocks add to the same dK and dV,
// in order).
#pragma once
#include "attention_rows.h"
#include "attention_tiles.h"

VG_BEGIN

constexpr int64_t kFewRows = 2;  // up to which query rows are taken one by one

// Adds the rows of head u of [rows x heads] to what is fetched.
VG_FN void vg_fetch_head(vg_coming* coming, const vg_attention_shape& s, int64_t u, const float* p, int64_t ld, int64_t rows) {
  coming->add(p + u / s.heads * rows * ld + u % s.heads * s.head_dim, ld, rows);
}

VG_NOINLINE void vg_attention(const vg_call& call, const vg_attention_args& a) {
  const vg_attention_cut cut(a);
  const int64_t blocks = a.tq <= kFewRows ? a.tq : cut.query_blocks();
  const vg_dropout drop(call.step(), a.drop_site, a.drop_thr);
  const vg_range mine = call.share((int64_t)call.batch() * a.heads * blocks);
  for (int64_t u = mine.begin; u < mine.end; u++) {
    const int64_t unit = u / blocks, b = unit / a.heads, h = unit % a.heads, next = (u + 1) / blocks;
    if (a.tq <= kFewRows) {
      vg_attention_row(call, a, b, h, u % blocks, drop);
      continue;
    }
    vg_coming coming = {a.head_dim};
    if (u + 1 < mine.end && next != unit) {
      vg_fetch_head(&coming, a, next, a.v, a.ldv, a.tk);
      vg_fetch_head(&coming, a, next, a.k, a.ldk, a.tk);
      vg_fetch_head(&coming, a, next, a.q, a.ldq, a.tq);
    }
    if (u % blocks == 0) vg_fetch_head(&coming, a, unit, a.o, a.ldo, a.tq);
    vg_attention_block(call, a, b, h, cut.query_rows(u % blocks), drop, &coming);
  }
}

// dq, dk and dv are written in full.
VG_NOINLINE void vg_attention_grad(const vg_call& call, const vg_attention_grad_args& a) {
  const vg_attention_cut cut(a);
  const vg_dropout drop(call.step(), a.drop_site, a.drop_thr);
  const vg_range mine = call.share((int64_t)call.batch() * a.heads);
  for (int64_t u = mine.begin; u < mine.end; u++) {
    const int64_t b = u / a.heads, h = u % a.heads, d = a.head_dim;
    if (a.tq <= kFewRows) {
      for (int64_t i = 0; i < a.tq; i++) vg_attention_grad_row(call, a, b, h, i, drop);
      continue;
    }
    vg_coming coming = {a.head_dim};
    if (u + 1 < mine.end) {
      vg_fetch_head(&coming, a, u + 1, a.v, a.ldv, a.tk);
      vg_fetch_head(&coming, a, u + 1, a.k, a.ldk, a.tk);
      vg_fetch_head(&coming, a, u + 1, a.q, a.ldq, a.tq);
      vg_fetch_head(&coming, a, u + 1, a.o, a.ldo, a.tq);
      vg_fetch_head(&coming, a, u + 1, a.dout, a.lddout, a.tq);
    }
    vg_fetch_head(&coming, a, u, a.dk, a.lddk, a.tk);
    vg_fetch_head(&coming, a, u, a.dv, a.lddv, a.tk);
    vg_fetch_head(&coming, a, u, a.dq, a.lddq, a.tq);
    int64_t written = 0;
    for (int64_t i = 0; i < cut.query_blocks(); i++)
      written = vg_attention_grad_block(call, a, b, h, cut.query_rows(i), written, drop, &coming);
    // Keys that no query sees.
    vg_zero_rows(a.dk + b * a.tk * a.lddk + h * d, a.lddk, d, written * kKeyBlock, a.tk);
    vg_zero_rows(a.dv + b * a.tk * a.lddv + h * d, a.lddv, d, written * kKeyBlock, a.tk);
  }
}

VG_END
