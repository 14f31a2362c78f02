// Scaled dot-product attention, forward: the CUDA counterpart of cpu/attention.h.
//
//   S = scale Q K^T,  P = softmax(S),  O = dropout(P) V,  lse = log sum exp S
//
// A warp owns 16 query rows of one head of one sample: it keeps their O, and of S
// a tile of up to 64 keys at a time, in registers, with running maximum and sum
// (online softmax). The warps of a group share the keys and values, which come
// through a ring of tiles in shared memory by asynchronous copies. A short
// sequence lies there whole, a long one passes through in two or three tiles.
//
// Geometry. G = ceil(tk/16) groups of 16 keys, R = ceil(tq/16) row strips,
// columns = head_dim rounded up to 16 (32 above 128), ld = columns + 8 (fp32: 4),
// E = bytes of an operand, 2 for bf16 and 4 otherwise.
//   warps w of a group: ceil(R / ceil(R/most)), most = 8, 4, 2 or 1
//   keys of a tile: 16 g, g = min(G, 4), or that halved once or twice
//   slots s of the ring: all tiles T = ceil(G/g); else 3, else 2
//   bytes of a group: (16 w + 2 rows) ld E + w mask, rows = min(16 g s, 16 G),
//     mask = 16 (ceil((16 tk + 127)/128) + 2) if tk <= 512, else
//     256 (ceil((64 g + 127)/128) + 2), and 0 without dropout
// The choice is the first of
//   for floor in 4, 1: for g: for most >= floor: all tiles in <= 80 KB (two blocks
//   on every chip), else 3 (if T > 3), else 2 slots (if T > 2) in <= 99 KB
// (what sm_86 has). A group of one warp shares a block with 3 others, one of two
// with another, if that stays within 80 KB.
#pragma once
#include "attention_copy.cuh"
#include "attention_dropout.cuh"

// Row of q: b*tq + i, at q + row*ldq + h*head_dim; rows of k and v: b*tk + j;
// lse[(b*heads + h)*tq + i]. Query row i stands at token q_first + i of q_total
// (they differ from i and tq when only some rows are computed): key j is seen if
// !causal or j <= q_first + i, and the dropout index of a weight is
// ((b*heads + h)*q_total + q_first + i)*tk + j. drop_thr 0: no dropout.
template <class E>
struct vg_attention_args {
  const E *q, *k, *v;
  int64_t ldq, ldk, ldv;
  E* o;
  int64_t ldo;
  float* lse;   // may be null
  float scale;  // above 0
  uint32_t drop_site, drop_thr;
};

constexpr int kAttentionFew = 80 << 10;   // shared bytes of which every chip has twice
constexpr int kAttentionMost = 99 << 10;  // shared bytes a block may have on every chip

// What forward and backward kernels of one attention have in common. DROPOUT
// false: drop_thr is 0 in every call.
template <vg_math MATH, int HEADS, int HEAD_DIM, int TQ, int TK, int Q_FIRST, int Q_TOTAL, bool CAUSAL, bool DROPOUT>
struct vg_attention_shape {
  static_assert(HEAD_DIM >= 1 && HEAD_DIM <= 256 && TQ >= 1 && TK >= 1 && TK <= 16384 && Q_FIRST + TQ <= Q_TOTAL);
  static constexpr vg_math math = MATH;
  static constexpr int heads = HEADS, head_dim = HEAD_DIM, tq = TQ, tk = TK, q_first = Q_FIRST, q_total = Q_TOTAL;
  static constexpr bool causal = CAUSAL, dropout = DROPOUT;
  using operand = typename vg_operand<MATH>::type;
  static constexpr int columns = vg_round_up32(HEAD_DIM, HEAD_DIM > 128 ? 32 : 16);
  static constexpr int ld = vg_padded<MATH>(columns);
  static constexpr int row_bytes = ld * (int)sizeof(operand);

  // How many keys query row i sees.
  VG_CONST static int seen(int i) { return CAUSAL ? vg_min32(TK, Q_FIRST + i + 1) : TK; }
  // 2^x is cheaper than e^x, and as good where operands are rounded anyway:
  // exponents come as multiples of log 2 then.
  static constexpr bool base2 = MATH != vg_math::fp32;
  static constexpr float per_unit = base2 ? 1.44269504f : 1.0f;
  VG_FN static float exp(float x) { return base2 ? vg_exp2(x) : vg_exp(x); }
};

// Blocks that should fit on a multiprocessor, for launch bounds: as many as have
// `registers` registers a thread, and shared memory.
VG_CONST int vg_attention_resident(int threads, int shared_bytes, int registers) {
  return vg_max32(1, vg_min32(65536 / (vg_round_up32(threads, 128) * registers), (228 << 10) / (shared_bytes + 1024)));
}

// Which group of its block a thread is in. A launch may have threads beyond them.
template <class Config>
VG_FN int vg_group_id() {
  return Config::groups == 1 ? 0 : vg_thread() / Config::group_threads;
}
// Barrier of one group of a block's threads. Each has a constant number, for
// what a kernel does not name it does not occupy.
template <class Config>
VG_FN void vg_group_sync(int id) {
  constexpr int threads = Config::group_threads;
  static_assert(threads == 32 || Config::groups <= 2);
  if (threads == 32)
    vg_sync_warp();
  else if (Config::groups == 1 || id == 0)
    vg_sync_some(1, threads);
  else
    vg_sync_some(2, threads);
}

struct vg_attention_tile {
  int warps, key_groups, slots;
};

template <vg_math MATH, int HEADS, int HEAD_DIM, int TQ, int TK, int Q_FIRST, int Q_TOTAL, bool CAUSAL, bool DROPOUT = true>
struct vg_attention_config : vg_attention_shape<MATH, HEADS, HEAD_DIM, TQ, TK, Q_FIRST, Q_TOTAL, CAUSAL, DROPOUT> {
  using shape = vg_attention_shape<MATH, HEADS, HEAD_DIM, TQ, TK, Q_FIRST, Q_TOTAL, CAUSAL, DROPOUT>;
  static constexpr int strips = vg_ceil_div32(TQ, 16), all_groups = vg_ceil_div32(TK, 16);

  VG_CONST static int mask_keys_of(int key_groups) { return TK <= 512 ? TK : 64 * key_groups; }
  VG_CONST static int mask_bytes_of(int key_groups) {
    if (!DROPOUT) return 0;
    const int rows = TK <= 512 ? 1 : 16, elements = TK <= 512 ? 16 * TK : 64 * key_groups;
    return rows * 16 * (vg_ceil_div32(elements + 127, 128) + 2);
  }
  VG_CONST static int key_rows_of(vg_attention_tile t) { return 16 * vg_min32(t.key_groups * t.slots, all_groups); }
  VG_CONST static int bytes_of(vg_attention_tile t) {
    return (16 * t.warps + 2 * key_rows_of(t)) * shape::row_bytes + t.warps * mask_bytes_of(t.key_groups);
  }
  VG_CONST static vg_attention_tile choose() {
    for (int floor = 4; floor >= 1; floor -= 3)
      for (int g = vg_min32(4, all_groups); g >= 1; g /= 2)
        for (int most = 8; most >= floor; most /= 2) {
          const int tiles = vg_ceil_div32(all_groups, g);
          vg_attention_tile t = {vg_ceil_div32(strips, vg_ceil_div32(strips, most)), g, tiles};
          if (bytes_of(t) <= kAttentionFew) return t;
          for (t.slots = 3; t.slots >= 2; t.slots--)
            if (t.slots < tiles && bytes_of(t) <= kAttentionMost) return t;
        }
    return {1, 1, 1};  // not reached: see the assertion
  }

  static constexpr vg_attention_tile tile = choose();
  static constexpr int warps = tile.warps, key_groups = tile.key_groups, slots = tile.slots;
  static constexpr int tile_keys = 16 * key_groups, tiles = vg_ceil_div32(TK, tile_keys);
  static constexpr int ahead = slots == tiles ? tiles : slots - 1;  // tiles copied in advance
  static constexpr int query_rows = 16 * warps, query_blocks = vg_ceil_div32(TQ, query_rows);
  static constexpr int group_bytes = bytes_of(tile), group_threads = 32 * warps;
  static constexpr int wish = warps == 1 ? 4 : warps == 2 ? 2 : 1;
  static constexpr int groups = wish * group_bytes <= kAttentionFew ? wish : wish >= 2 && 2 * group_bytes <= kAttentionFew ? 2 : 1;
  static_assert(group_bytes <= kAttentionMost && (slots == tiles || slots >= 2));
  using mask = vg_weight_mask<16, TK, mask_keys_of(key_groups)>;
  static constexpr int mask_bytes = mask_bytes_of(key_groups);
  static_assert(!DROPOUT || mask::bytes == mask_bytes);

  // The launch.
  static constexpr int threads = group_threads * groups, shared_bytes = group_bytes * groups;
  static constexpr int narrow = shape::columns > 128 ? 255 : shape::columns > 64 ? 168 : 128;
  static constexpr int registers = MATH == vg_math::bf16 ? narrow : vg_min32(narrow + 40, 255);  // enough for a thread
  static constexpr int resident = vg_attention_resident(threads, shared_bytes, registers);
  VG_CONST static int64_t blocks(int64_t batch) { return vg_ceil_div(batch * HEADS * query_blocks, groups); }
  VG_CONST static int64_t workspace_bytes(int64_t) { return 0; }
  VG_CONST static int64_t counters(int64_t) { return 0; }
};

// Row `row` of a head, which is b*heads + h, at the head's first column. `tokens`:
// rows of a sample.
template <class Config, class E>
VG_FN E* vg_head_row(E* p, int64_t ld, int head, int tokens, int row) {
  return p + ((int64_t)(head / Config::heads) * tokens + row) * ld + head % Config::heads * Config::head_dim;
}
// Starts the copy of `rows` rows of a head to shared memory, those from `tokens`
// on as zeros, by the threads of a group; and finishes it.
template <class Config, class X, class E>
VG_FN void vg_head_copy(X* to, const E* p, int64_t ld, int head, int tokens, int row, int rows, int thread) {
  const bool aligned = vg_rows_aligned(p, ld, Config::head_dim);
  vg_copy_rows<Config::head_dim, Config::columns, Config::ld>(to, vg_head_row<Config>(p, ld, head, tokens, row), ld, tokens - row,
                                                              rows, aligned, thread, Config::group_threads);
}
template <class Config, class X>
VG_FN void vg_head_finish(X* to, int rows, int thread) {
  vg_finish_rows<Config::math, Config::columns, Config::ld>(to, rows, thread, Config::group_threads);
}

// The rows of a warp while keys pass by: the running maximum of Q K^T, the sum of
// exponentials over the columns this thread has, and O before its division by
// the whole sum.
template <class Config>
struct vg_attention_rows {
  float top[2], sum[2];
  float o[Config::columns / 8][4];
};

// What a group of warps works on.
template <class Config>
struct vg_attention_group {
  using X = typename Config::operand;
  X *q, *k, *v;        // shared: query rows, and the ring of key and value tiles
  uint8_t* mask;       // of this warp
  int id, thread;      // group in the block, thread in the group
  int head, first;     // b*heads + h, and its first query row

  VG_FN int warp() const { return thread >> 5; }
  VG_FN int row() const { return first + 16 * warp(); }  // first row of this warp
  VG_FN void sync() const { vg_group_sync<Config>(id); }
};

// Starts copying keys and values of one tile to its slot; and finishes it.
template <class Config>
VG_FN int vg_attention_slot(int tile) {
  return tile % Config::slots * Config::tile_keys * Config::ld;
}
template <class Config>
VG_FN int vg_attention_key_rows(int tile) {
  return vg_min32(Config::tile_keys, vg_round_up32(Config::tk - tile * Config::tile_keys, 16));
}
template <class Config, class E>
VG_FN void vg_attention_copy_keys(const vg_attention_group<Config>& s, const vg_attention_args<E>& a, int tile) {
  const int row = tile * Config::tile_keys, rows = vg_attention_key_rows<Config>(tile), slot = vg_attention_slot<Config>(tile);
  vg_head_copy<Config>(s.k + slot, a.k, a.ldk, s.head, Config::tk, row, rows, s.thread);
  vg_head_copy<Config>(s.v + slot, a.v, a.ldv, s.head, Config::tk, row, rows, s.thread);
}
template <class Config>
VG_FN void vg_attention_finish_keys(const vg_attention_group<Config>& s, int tile) {
  const int rows = vg_attention_key_rows<Config>(tile), slot = vg_attention_slot<Config>(tile);
  vg_head_finish<Config>(s.k + slot, rows, s.thread);
  vg_head_finish<Config>(s.v + slot, rows, s.thread);
}

// From S of a tile to exponentials, zero where a key is not seen; the running
// maximum and sum follow, and O shrinks as the maximum grows.
template <class Config, int N>
VG_FN void vg_attention_softmax(float (&p)[N][4], vg_attention_rows<Config>& r, float scale, int row, int first_key) {
  const int g = vg_lane() >> 2, t = vg_lane() & 3;
  const float factor = scale * Config::per_unit;
  if (first_key + 8 * N > Config::seen(row)) {
    VG_UNROLL for (int j = 0; j < N; j++)
      VG_UNROLL for (int e = 0; e < 4; e++)
        if (first_key + 8 * j + 2 * t + (e & 1) >= Config::seen(row + g + (e & 2) * 4)) p[j][e] = -vg_infinity();
  }
  VG_UNROLL for (int h = 0; h < 2; h++) {
    float top = r.top[h];
    VG_UNROLL for (int j = 0; j < N; j++)  // in this order: a NaN is passed over, and comes back as a weight
      VG_UNROLL for (int e = 0; e < 2; e++) top = vg_max(p[j][2 * h + e], top);
    top = vg_max(vg_shfl_xor(top, 1), top);
    top = vg_max(vg_shfl_xor(top, 2), top);
    const float base = top == -vg_infinity() ? 0.0f : top * factor;  // no score above -inf yet: no weight is NaN for it
    const float fade = Config::exp(vg_fma(r.top[h], factor, -base));
    r.top[h] = top;
    float sum = 0.0f;
    VG_UNROLL for (int j = 0; j < N; j++)
      VG_UNROLL for (int e = 0; e < 2; e++) sum += p[j][2 * h + e] = Config::exp(vg_fma(p[j][2 * h + e], factor, -base));
    r.sum[h] = vg_fma(r.sum[h], fade, sum);
    VG_UNROLL for (int j = 0; j < Config::columns / 8; j++)
      VG_UNROLL for (int e = 0; e < 2; e++) r.o[j][2 * h + e] *= fade;
  }
}

// Zeros the weights of a tile that are dropped. Columns 16 apart share bits.
template <class Config, int N>
VG_FN void vg_attention_drop(float (&p)[N][4], const typename Config::mask& mask, int rows, int key) {
  const int g = vg_lane() >> 2, t = vg_lane() & 3;
  VG_UNROLL for (int h = 0; h < 2; h++) {
    const int row = vg_min32(g + 8 * h, rows - 1);  // of rows that are not there any bits will do
    VG_UNROLL for (int c = 0; c < 4; c++) {
      const uint32_t kept = mask.kept_from(mask.place(row, key + 2 * t + 8 * (c >> 1) + (c & 1)));
      VG_UNROLL for (int j = 0; j < N / 2; j++) {
        float& x = p[2 * j + (c >> 1)][2 * h + (c & 1)];
        x = kept >> j & 1 ? x : 0.0f;
      }
    }
  }
}

// One tile of keys for the rows of one warp.
template <class Config, class E>
VG_FN void vg_attention_keys(const vg_attention_group<Config>& s, const vg_attention_args<E>& a, const vg_weight_dropout& drop,
                             typename Config::mask& mask, vg_attention_rows<Config>& r, int tile) {
  constexpr int ld = Config::ld, segment = Config::mask::whole ? Config::tiles : 4;
  const int row = s.row(), first_key = tile * Config::tile_keys, rows = vg_min32(16, Config::tq - row);
  const int groups = vg_ceil_div32(Config::seen(row + rows - 1) - first_key, 16), slot = vg_attention_slot<Config>(tile);
  if (groups <= 0) return;
  float p[2 * Config::key_groups][4];
  vg_zero(p);
  vg_warp_nt<Config::math, Config::columns, ld>(p, s.q + 16 * s.warp() * ld, s.k + slot, groups);
  vg_attention_softmax<Config>(p, r, a.scale, row, first_key);
  if (Config::dropout && drop.on) {
    if (tile % segment == 0) {
      vg_sync_warp();
      const int64_t index = ((int64_t)s.head * Config::q_total + Config::q_first + row) * Config::tk + first_key;
      mask.fill(drop, index, rows, vg_min32(Config::tk - first_key, segment * Config::tile_keys), vg_lane(), 32);
      vg_sync_warp();
    }
    vg_attention_drop<Config>(p, mask, rows, tile % segment * Config::tile_keys);
  }
  vg_warp_nn<Config::math, ld>(r.o, p, s.v + slot, groups);
}

// Divides by the sum and stores.
template <class Config, class E>
VG_FN void vg_attention_finish(const vg_attention_group<Config>& s, const vg_attention_args<E>& a, float kept,
                               vg_attention_rows<Config>& r) {
  const int row = s.row(), rows = vg_min32(16, Config::tq - row), g = vg_lane() >> 2, t = vg_lane() & 3;
  VG_UNROLL for (int h = 0; h < 2; h++) {
    r.sum[h] += vg_shfl_xor(r.sum[h], 1);
    r.sum[h] += vg_shfl_xor(r.sum[h], 2);
    if (a.lse && t == 0 && g + 8 * h < rows)
      a.lse[(int64_t)s.head * Config::tq + row + g + 8 * h] = vg_fma(r.top[h], a.scale, vg_log(r.sum[h]));
  }
  vg_store_rows(r.o, vg_head_row<Config>(a.o, a.ldo, s.head, Config::tq, row), a.ldo, rows, Config::head_dim,
                vg_rows_aligned(a.o, a.ldo, Config::head_dim), kept / r.sum[0], kept / r.sum[1]);
}

// The block's share of the group, or a group that starts beyond the batch.
template <class Config>
VG_FN vg_attention_group<Config> vg_attention_my_group(const vg_call& c) {
  using X = typename Config::operand;
  const int id = vg_group_id<Config>(), thread = vg_thread() - id * Config::group_threads;
  const int unit = c.block * Config::groups + id;
  X* q = (X*)(vg_shared() + id * Config::group_bytes);
  X* k = q + Config::query_rows * Config::ld;
  X* v = k + Config::key_rows_of(Config::tile) * Config::ld;
  uint8_t* mask = (uint8_t*)(v + Config::key_rows_of(Config::tile) * Config::ld) + (thread >> 5) * Config::mask_bytes;
  return {q, k, v, mask, id, thread, unit / Config::query_blocks, unit % Config::query_blocks * Config::query_rows};
}

template <class Config, class E>
VG_FN void vg_attention(const vg_call& c, const vg_attention_args<E>& a) {
  const vg_attention_group<Config> s = vg_attention_my_group<Config>(c);
  if (vg_thread() >= Config::threads || s.head >= c.batch() * Config::heads) return;
  const vg_weight_dropout drop(c.step(), a.drop_site, a.drop_thr);
  typename Config::mask mask = {s.mask, 0};
  const int valid = vg_min32(Config::query_rows, Config::tq - s.first);
  const int tiles = vg_ceil_div32(Config::seen(s.first + valid - 1), Config::tile_keys);

  vg_head_copy<Config>(s.q, a.q, a.ldq, s.head, Config::tq, s.first, Config::query_rows, s.thread);
  VG_NO_UNROLL for (int i = 0; i < Config::ahead; i++) {
    if (i < tiles) vg_attention_copy_keys(s, a, i);
    vg_cp_async_commit();
  }
  vg_attention_rows<Config> r = {{-vg_infinity(), -vg_infinity()}, {0.0f, 0.0f}, {}};
  VG_NO_UNROLL for (int i = 0; i < tiles; i++) {
    vg_cp_async_wait<Config::ahead - 1>();
    if (i == 0) vg_head_finish<Config>(s.q, Config::query_rows, s.thread);
    vg_attention_finish_keys(s, i);
    s.sync();  // the tile is there; and all warps have left the one before, whose slot comes next
    if (Config::ahead < Config::tiles && i + Config::ahead < tiles) vg_attention_copy_keys(s, a, i + Config::ahead);
    vg_cp_async_commit();
    if (s.row() < Config::tq) vg_attention_keys(s, a, drop, mask, r, i);
  }
  vg_cp_async_wait<0>();
  if (s.row() < Config::tq) vg_attention_finish(s, a, drop.kept(), r);
}
