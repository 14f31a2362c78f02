// Scaled dot-product attention over whole sequences, forward and backward, each
// head in the way that suits its shape: by tiles, few query rows one by one, short
// sequences many heads at once.
//
// One unit of work is a group of kLanes short heads, or a block of query rows of
// one head of one sample (forward), or a whole head (backward: its blocks add to
// the same dK and dV, in order).
#pragma once
#include "attention_lanes.h"
#include "attention_rows.h"
#include "attention_tiles.h"

VG_BEGIN

constexpr int64_t kFewRows = 2;  // up to which query rows are taken one by one

// How the heads of a launch are divided: into groups, all of them, or each into
// blocks. The shape of a head decides it and not their number, so that a sample has
// the same bits in every batch.
struct vg_attention_units {
  int64_t heads, groups, blocks;

  VG_FN vg_attention_units(const vg_call& call, const vg_attention_shape& s, int64_t blocks)
      : heads((int64_t)call.batch() * s.heads), groups(vg_lanes_suit(s) ? vg_ceil_div(heads, kLanes) : 0), blocks(blocks) {}
  VG_FN int64_t count() const { return groups > 0 ? groups : heads * blocks; }
  VG_FN vg_lane_group group(int64_t u) const { return {u * kLanes, (int)vg_min64(kLanes, heads - u * kLanes)}; }
  VG_FN int64_t head(int64_t u) const { return u / blocks; }
  VG_FN int64_t block(int64_t u) const { return u % blocks; }
};

VG_NOINLINE void vg_attention(const vg_call& call, const vg_attention_args& a) {
  const vg_attention_cut cut(a);
  const vg_attention_units units(call, a, a.tq <= kFewRows ? a.tq : cut.query_blocks());
  const vg_dropout drop(call.step(), a.drop_site, a.drop_thr);
  const vg_range mine = call.share(units.count());
  for (int64_t u = mine.begin; u < mine.end; u++) {
    if (units.groups > 0) {
      vg_attention_lanes(call, a, units.group(u), drop);
      continue;
    }
    const int64_t head = units.head(u), next = units.head(u + 1), b = head / a.heads, h = head % a.heads;
    if (a.tq <= kFewRows) {
      vg_attention_row(call, a, b, h, units.block(u), drop);
      continue;
    }
    vg_coming coming = {a.head_dim};
    if (u + 1 < mine.end && next != head) {
      coming.add_head(a, next, a.v, a.ldv, a.tk);
      coming.add_head(a, next, a.k, a.ldk, a.tk);
      coming.add_head(a, next, a.q, a.ldq, a.tq);
    }
    if (units.block(u) == 0) coming.add_head(a, head, a.o, a.ldo, a.tq);
    vg_attention_block(call, a, b, h, cut.query_rows(units.block(u)), drop, &coming);
  }
}

// dq, dk and dv are written in full.
VG_NOINLINE void vg_attention_grad(const vg_call& call, const vg_attention_grad_args& a) {
  const vg_attention_units units(call, a, 1);
  const vg_dropout drop(call.step(), a.drop_site, a.drop_thr);
  const vg_range mine = call.share(units.count());
  for (int64_t u = mine.begin; u < mine.end; u++) {
    if (units.groups > 0) {
      vg_attention_grad_lanes(call, a, units.group(u), drop);
      continue;
    }
    const int64_t head = units.head(u), b = head / a.heads, h = head % a.heads;
    if (a.tq <= kFewRows) {
      for (int64_t i = 0; i < a.tq; i++) vg_attention_grad_row(call, a, b, h, i, drop);
      continue;
    }
    vg_coming coming = {a.head_dim};
    if (u + 1 < mine.end) {
      coming.add_head(a, head + 1, a.v, a.ldv, a.tk);
      coming.add_head(a, head + 1, a.k, a.ldk, a.tk);
      coming.add_head(a, head + 1, a.q, a.ldq, a.tq);
      coming.add_head(a, head + 1, a.o, a.ldo, a.tq);
      coming.add_head(a, head + 1, a.dout, a.lddout, a.tq);
    }
    coming.add_head(a, head, a.dk, a.lddk, a.tk);
    coming.add_head(a, head, a.dv, a.lddv, a.tk);
    coming.add_head(a, head, a.dq, a.lddq, a.tq);
    vg_attention_grad_head(call, a, b, h, drop, &coming);
  }
}

VG_END
