// Attention, backward, in one pass: dQ, dK and dV of a head by one group of warps.
// P is recomputed from the saved lse, and with D = rowsum(dO O), m the dropout
// multiplier:
//
//   dV = (m P)^T dO,  dS = scale P (m (dO V^T) - D),  dK = dS^T Q,  dQ = dS K
//
// A warp owns 16 keys. It computes S^T and dP^T for its keys and a tile of up to
// 48 queries, which are then, in registers, the left operands of its dV and dK;
// those stay in registers while the queries pass by. dS^T also goes to shared
// memory, where after a barrier all warps of the group together compute dQ of
// the tile. If all keys do not fit, they come in tiles as well, and dQ is added
// up over them in float, in their order: in dq itself if that holds floats, else
// in the workspace. All sums are in an order that only shapes decide.
//
// Geometry. K = ceil(tk/16) key strips; columns, ld, E as in attention.cuh;
// split = 2 where columns > 128 (two warps share 16 keys, each with half of the
// columns of dK and dV), else 1.
//   warps w of a group: split * strips, strips = ceil(K / n), n key tiles of
//     16 strips keys; strips <= most = 8 / split if columns > 64, else 13 if K <= 13,
//     else 12
//   queries of a tile: q = min(round_up(tq, 16), 48 if tq <= 48 and columns <= 64
//     else 32), or 16
//   slots s of queries: 2, or 1
//   bytes of a group: 2 (16 strips + s q) ld E + 16 strips (q + 8) E
//     + 8 (round_up(tq, q) if tq <= 1024, else q)
//     + mask, which is 0 without dropout, else 16 (ceil((q tk + 127)/128) + 2) if
//     n = 1, else 16 q (ceil((16 strips + 127)/128) + 2)
// The choice is the first that stays within 99 KB of
//   for n from ceil(K / most) on: for q, larger first: s = 2 if tq > q, s = 1
// A group of one warp shares a block with 3 others, one of two with another, if
// that stays within 80 KB. Where there is a workspace, blocks loop over heads.
#pragma once
#include "attention.cuh"

// Rows as in vg_attention_args; those of dout and o are query rows, as is dq;
// dk and dv have key rows. All are written in full.
template <class E>
struct vg_attention_grad_args {
  const E *q, *k, *v, *o, *dout;
  const float* lse;
  int64_t ldq, ldk, ldv, ldo, lddout;
  E *dq, *dk, *dv;
  int64_t lddq, lddk, lddv;
  float scale;  // above 0
  uint32_t drop_site, drop_thr;
};

constexpr int kAttentionSumBlocks = 256;  // most blocks of a launch that needs a workspace

struct vg_attention_grad_tile {
  int strips, queries, slots;
};

// STORAGE: bytes of an element in memory, sizeof(E).
template <vg_math MATH, int HEADS, int HEAD_DIM, int TQ, int TK, int Q_FIRST, int Q_TOTAL, bool CAUSAL, bool DROPOUT, int STORAGE>
struct vg_attention_grad_config : vg_attention_shape<MATH, HEADS, HEAD_DIM, TQ, TK, Q_FIRST, Q_TOTAL, CAUSAL, DROPOUT> {
  using shape = vg_attention_shape<MATH, HEADS, HEAD_DIM, TQ, TK, Q_FIRST, Q_TOTAL, CAUSAL, DROPOUT>;
  using operand = typename shape::operand;
  static constexpr int all_strips = vg_ceil_div32(TK, 16), split = shape::columns > 128 ? 2 : 1;
  static constexpr int most_strips = shape::columns > 64 ? 8 / split : all_strips <= 13 ? 13 : 12;
  static constexpr int most_queries = vg_min32(vg_round_up32(TQ, 16), TQ <= 48 && shape::columns <= 64 ? 48 : 32);

  VG_CONST static int stat_rows_of(vg_attention_grad_tile t) { return TQ <= 1024 ? vg_round_up32(TQ, t.queries) : t.queries; }
  VG_CONST static int mask_bytes_of(vg_attention_grad_tile t) {
    if (!DROPOUT) return 0;
    const int keys = 16 * t.strips, rows = keys >= TK ? 1 : t.queries, elements = keys >= TK ? t.queries * TK : keys;
    return rows * 16 * (vg_ceil_div32(elements + 127, 128) + 2);
  }
  VG_CONST static int bytes_of(vg_attention_grad_tile t) {
    return 2 * (16 * t.strips + t.slots * t.queries) * shape::row_bytes + 16 * t.strips * (t.queries + 8) * (int)sizeof(operand) +
           8 * stat_rows_of(t) + mask_bytes_of(t);
  }
  VG_CONST static vg_attention_grad_tile choose() {
    for (int n = vg_ceil_div32(all_strips, most_strips); n <= all_strips; n++)
      for (int q = most_queries; q >= 16; q = q > 16 ? 16 : 0)
        for (int slots = TQ > q ? 2 : 1; slots >= 1; slots--) {
          const vg_attention_grad_tile t = {vg_ceil_div32(all_strips, n), q, slots};
          if (bytes_of(t) <= kAttentionMost) return t;
        }
    return {1, 16, 1};  // not reached: see the assertion
  }

  static constexpr vg_attention_grad_tile tile = choose();
  static constexpr int strips = tile.strips, queries = tile.queries, slots = tile.slots, warps = strips * split;
  static constexpr int tile_keys = 16 * strips, key_tiles = vg_ceil_div32(TK, tile_keys), query_tiles = vg_ceil_div32(TQ, queries);
  static constexpr int share = shape::columns / split;  // columns of dK and dV that a warp has
  // Queries whose weights are in registers at a time: of those, threads of many
  // warps have few.
  static constexpr int chunk = warps > (key_tiles > 1 ? 8 : 12) ? 16 : queries;
  static constexpr int ds_ld = queries + 8, stat_rows = stat_rows_of(tile);
  static constexpr bool all_stats = stat_rows >= TQ;
  static constexpr int group_bytes = bytes_of(tile), group_threads = 32 * warps;
  static constexpr int wish = warps == 1 ? 4 : warps == 2 ? 2 : 1;
  static constexpr int groups = wish * group_bytes <= kAttentionFew ? wish : wish >= 2 && 2 * group_bytes <= kAttentionFew ? 2 : 1;
  static_assert(group_bytes <= kAttentionMost);
  using mask = vg_weight_mask<queries, TK, tile_keys>;
  static_assert(!DROPOUT || mask::bytes == mask_bytes_of(tile));

  // The pieces of dQ that warps take turns at have 16 rows and so many columns:
  // what makes the fewest columns of work for the busiest warp.
  VG_CONST static int rounds(int width) { return vg_ceil_div32(queries / 16 * (shape::columns / width), warps) * width; }
  VG_CONST static int choose_width() {
    int best = 16;
    for (int width = 32; width <= 64; width += 16)
      if (shape::columns % width == 0 && rounds(width) <= rounds(best)) best = width;
    return best;
  }
  static constexpr int dq_width = choose_width(), dq_pieces = queries / 16 * (shape::columns / dq_width);

  // The launch.
  static constexpr int threads = group_threads * groups, shared_bytes = group_bytes * groups;
  static constexpr int registers = shape::columns > 64 ? 255 : (shape::columns > 32 ? 168 : 128);
  static constexpr int resident = vg_attention_resident(threads, shared_bytes, registers);
  static constexpr bool sums = key_tiles > 1 && STORAGE != 4;  // dQ is added up in the workspace
  VG_CONST static int64_t blocks(int64_t batch) {
    const int64_t n = vg_ceil_div(batch * HEADS, groups);
    return sums ? vg_min64(n, kAttentionSumBlocks) : n;
  }
  VG_CONST static int64_t workspace_bytes(int64_t batch) {
    return sums ? blocks(batch) * groups * TQ * shape::columns * (int64_t)sizeof(float) : 0;
  }
  VG_CONST static int64_t counters(int64_t) { return 0; }
};

// What a group of warps works on.
template <class Config>
struct vg_attention_grad_group {
  using X = typename Config::operand;
  static constexpr int slot = Config::queries * Config::ld;

  X *k, *v, *q, *dout, *ds;  // shared: a tile of keys and values, the slots of queries, dS^T
  float *lse, *delta;        // shared: of query rows; lse times Config::per_unit
  typename Config::mask mask;
  float* sums;               // workspace, tq rows of `columns` floats
  int id, thread;            // group in the block, thread in the group
  int head;                  // b*heads + h

  VG_FN int warp() const { return thread >> 5; }
  VG_FN int strip() const { return warp() / Config::split; }  // which 16 keys
  VG_FN int part() const { return warp() % Config::split; }   // which columns of dK and dV
  VG_FN void sync() const { vg_group_sync<Config>(id); }
  template <class E>
  VG_FN E* query(E* p, int64_t ld, int row) const { return vg_head_row<Config>(p, ld, head, Config::tq, row); }
  template <class E>
  VG_FN E* key(E* p, int64_t ld, int row) const { return vg_head_row<Config>(p, ld, head, Config::tk, row); }
};

template <class Config, class E>
VG_FN void vg_attention_copy_queries(const vg_attention_grad_group<Config>& s, const vg_attention_grad_args<E>& a, int tile) {
  const int row = tile * Config::queries, to = tile % Config::slots * s.slot;
  vg_head_copy<Config>(s.q + to, a.q, a.ldq, s.head, Config::tq, row, Config::queries, s.thread);
  vg_head_copy<Config>(s.dout + to, a.dout, a.lddout, s.head, Config::tq, row, Config::queries, s.thread);
  vg_cp_async_commit();
}

// The part of a dot product over head_dim that one of eight threads has.
template <class Config, class E>
VG_FN float vg_attention_dot(const E* x, const E* y, int lane, bool aligned) {
  constexpr int size = 16 / (int)sizeof(E);
  float sum = 0.0f;
  if (aligned) {
    VG_UNROLL for (int d = 0; d < Config::head_dim; d += 8 * size)
      if (d + lane * size < Config::head_dim) {
        float a[size], b[size];
        vg_load_piece(x + d + lane * size, a);
        vg_load_piece(y + d + lane * size, b);
        VG_UNROLL for (int e = 0; e < size; e++) sum = vg_fma(a[e], b[e], sum);
      }
  } else {
    VG_NO_UNROLL for (int d = lane; d < Config::head_dim; d += 8)
      sum = vg_fma(vg_load<float>(x + d, 1), vg_load<float>(y + d, 1), sum);
  }
  return sum;
}

// lse and delta of `rows` query rows, eight threads a row. Rows that are not
// there get an lse of infinity, which makes their weights zero.
template <class Config, class E>
VG_FN void vg_attention_stats(const vg_attention_grad_group<Config>& s, const vg_attention_grad_args<E>& a, int first, int rows) {
  const int lane = vg_lane() & 7;
  const bool aligned = vg_rows_aligned(a.o, a.ldo, Config::head_dim) && vg_rows_aligned(a.dout, a.lddout, Config::head_dim);
  VG_NO_UNROLL for (int r = 4 * s.warp() + (vg_lane() >> 3); r < rows; r += 4 * Config::warps) {
    const bool valid = first + r < Config::tq;
    const int row = valid ? first + r : 0;
    float sum = vg_attention_dot<Config>(s.query(a.o, a.ldo, row), s.query(a.dout, a.lddout, row), lane, aligned);
    VG_UNROLL for (int step = 4; step > 0; step /= 2) sum += vg_shfl_xor(sum, step);
    if (lane != 0) continue;
    s.delta[r] = valid ? sum : 0.0f;
    s.lse[r] = valid ? a.lse[(int64_t)s.head * Config::tq + row] * Config::per_unit : vg_infinity();
  }
}

// From S^T and dP^T of 16 keys to dropout(P)^T and dS^T; zero where a query does
// not see a key. The keys stand at `strip` of a tile from first_key on, the
// queries at `chunk` of a tile from `query` on, of which there are `rows`.
template <class Config, int N>
VG_FN void vg_attention_weights_grad(const vg_attention_grad_group<Config>& s, const vg_weight_dropout& drop, float scale,
                                     int first_key, int strip, int query, int chunk, int rows, float (&p)[N][4],
                                     float (&ds)[N][4]) {
  const int g = vg_lane() >> 2, t = vg_lane() & 3, stats = (Config::all_stats ? query : 0) + chunk;
  const float factor = scale * Config::per_unit, kept = drop.kept();
  const bool masked = first_key + strip + 16 > Config::seen(query + chunk), dropped = Config::dropout && drop.on;
  VG_UNROLL for (int j = 0; j < N; j++) {
    const int stat = stats + 8 * j + 2 * t;
    const vg_float2 lse = *(const vg_float2*)(s.lse + stat), delta = *(const vg_float2*)(s.delta + stat);
    VG_UNROLL for (int e = 0; e < 4; e++) {
      const int key = strip + g + 8 * (e >> 1), row = chunk + 8 * j + 2 * t + (e & 1);
      float m = 1.0f;
      if (dropped) m = s.mask.kept(s.mask.place(vg_min32(row, rows - 1), key)) ? kept : 0.0f;
      const float weight = Config::exp(vg_fma(p[j][e], factor, e & 1 ? -lse.y : -lse.x));
      const float grad = scale * weight * vg_fma(ds[j][e], m, e & 1 ? -delta.y : -delta.x);
      const bool zero = masked && first_key + key >= Config::seen(query + row);
      p[j][e] = zero ? 0.0f : weight * m;
      ds[j][e] = zero ? 0.0f : grad;
    }
  }
}

// dK and dV of a warp's keys, while queries pass by.
template <class Config>
struct vg_attention_key_grads {
  float dk[Config::share / 8][4], dv[Config::share / 8][4];
};

// One tile of queries for the keys of one warp, a chunk of them at a time.
template <class Config>
VG_FN void vg_attention_queries(const vg_attention_grad_group<Config>& s, const vg_weight_dropout& drop, float scale, int key_tile,
                                int query_tile, vg_attention_key_grads<Config>& r) {
  constexpr int ld = Config::ld, N = Config::chunk / 8;
  const int first_key = key_tile * Config::tile_keys, strip = 16 * s.strip(), query = query_tile * Config::queries;
  const int rows = vg_min32(Config::queries, Config::tq - query), slot = query_tile % Config::slots * s.slot;
  if (first_key + strip >= Config::seen(query + rows - 1)) return;
  VG_NO_UNROLL for (int i = 0; i < rows; i += Config::chunk) {
    const int groups = vg_ceil_div32(rows - i, 16);
    const typename Config::operand *q = s.q + slot + i * ld, *dout = s.dout + slot + i * ld;
    float p[N][4], ds[N][4];
    vg_zero(p);
    vg_zero(ds);
    vg_warp_nt<Config::math, Config::columns, ld>(p, s.k + strip * ld, q, groups);
    vg_warp_nt<Config::math, Config::columns, ld>(ds, s.v + strip * ld, dout, groups);
    vg_attention_weights_grad(s, drop, scale, first_key, strip, query, i, rows, p, ds);
    if (s.part() == 0) {
      typename Config::operand* to = s.ds + (strip + (vg_lane() >> 2)) * Config::ds_ld + i + 2 * (vg_lane() & 3);
      VG_UNROLL for (int j = 0; j < N; j++)
        VG_UNROLL for (int h = 0; h < 2; h++)
          vg_store_operand(to + 8 * h * Config::ds_ld + 8 * j, ds[j][2 * h], ds[j][2 * h + 1], Config::math);
    }
    vg_warp_nn<Config::math, ld>(r.dv, p, dout + s.part() * Config::share, groups);
    vg_warp_nn<Config::math, ld>(r.dk, ds, q + s.part() * Config::share, groups);
  }
}

// acc += what 16 rows of dQ have so far.
template <int N>
VG_FN void vg_attention_add_sums(float (&acc)[N][4], const float* from, int64_t ld, int rows, int columns) {
  const int g = vg_lane() >> 2, t = vg_lane() & 3;
  VG_UNROLL for (int j = 0; j < N; j++)
    VG_UNROLL for (int e = 0; e < 4; e++) {
      const int row = g + 8 * (e >> 1), col = 8 * j + 2 * t + (e & 1);
      if (row < rows && col < columns) acc[j][e] += from[row * ld + col];
    }
}

// dQ of a tile of queries: what the keys of one tile add to it. A thread meets
// the same elements for every tile of keys.
template <class Config, class E>
VG_FN void vg_attention_query_grads(const vg_attention_grad_group<Config>& s, const vg_attention_grad_args<E>& a, int key_tile,
                                    int query_tile) {
  constexpr int width = Config::dq_width, per_row = Config::columns / width;
  const int query = query_tile * Config::queries, last = vg_min32(query + Config::queries, Config::tq) - 1;
  const int keys = vg_min32(Config::tile_keys, Config::seen(last) - key_tile * Config::tile_keys);
  const bool aligned = vg_rows_aligned(a.dq, a.lddq, Config::head_dim);
  VG_NO_UNROLL for (int i = s.warp(); i < Config::dq_pieces; i += Config::warps) {
    const int first = 16 * (i / per_row), row = query + first, col = i % per_row * width, rows = vg_min32(16, Config::tq - row);
    if (rows <= 0) break;
    float acc[width / 8][4];
    vg_zero(acc);
    vg_warp_tn<Config::math, Config::ds_ld, Config::ld>(acc, s.ds + first, s.k + col, vg_round_up32(keys, 16));
    E* dq = s.query(a.dq, a.lddq, row) + col;
    const int columns = Config::head_dim - col;
    if constexpr (Config::key_tiles > 1 && sizeof(E) == 4) {
      if (key_tile > 0) vg_attention_add_sums(acc, dq, a.lddq, rows, columns);
    }
    if constexpr (Config::sums) {
      float* sums = s.sums + row * Config::columns + col;
      if (key_tile > 0) vg_attention_add_sums(acc, sums, Config::columns, rows, columns);
      if ((key_tile + 1) * Config::tile_keys < Config::seen(last)) {
        vg_store_rows(acc, sums, Config::columns, rows, columns, false, 1.0f, 1.0f);
        continue;
      }
    }
    vg_store_rows(acc, dq, a.lddq, rows, columns, aligned, 1.0f, 1.0f);
  }
}

// One tile of keys: all queries that see it pass by.
template <class Config, class E>
VG_FN void vg_attention_key_tile(vg_attention_grad_group<Config>& s, const vg_attention_grad_args<E>& a,
                                 const vg_weight_dropout& drop, int tile) {
  const int first = tile * Config::tile_keys, keys = vg_min32(Config::tile_keys, Config::tk - first);
  const int begin = Config::causal ? vg_max32(0, first - Config::q_first) / Config::queries : 0;
  vg_attention_key_grads<Config> r;
  vg_zero(r.dk);
  vg_zero(r.dv);
  if (begin < Config::query_tiles) {
    vg_head_copy<Config>(s.k, a.k, a.ldk, s.head, Config::tk, first, Config::tile_keys, s.thread);
    vg_head_copy<Config>(s.v, a.v, a.ldv, s.head, Config::tk, first, Config::tile_keys, s.thread);
    vg_attention_copy_queries(s, a, begin);
  }
  if (Config::all_stats && tile == 0) vg_attention_stats(s, a, 0, Config::stat_rows);
  VG_NO_UNROLL for (int i = begin; i < Config::query_tiles; i++) {
    const int query = i * Config::queries, rows = vg_min32(Config::queries, Config::tq - query);
    if (!Config::all_stats) vg_attention_stats(s, a, query, Config::queries);
    if (Config::dropout && drop.on) {
      const int64_t index = ((int64_t)s.head * Config::q_total + Config::q_first + query) * Config::tk + first;
      s.mask.fill(drop, index, rows, keys, s.thread, Config::group_threads);
    }
    vg_cp_async_wait<0>();
    if (i == begin) {
      vg_head_finish<Config>(s.k, Config::tile_keys, s.thread);
      vg_head_finish<Config>(s.v, Config::tile_keys, s.thread);
    }
    vg_head_finish<Config>(s.q + i % Config::slots * s.slot, Config::queries, s.thread);
    vg_head_finish<Config>(s.dout + i % Config::slots * s.slot, Config::queries, s.thread);
    s.sync();  // operands are there; and dS^T of the tile before has been read
    if (Config::slots > 1 && i + 1 < Config::query_tiles) vg_attention_copy_queries(s, a, i + 1);
    vg_attention_queries(s, drop, a.scale, tile, i, r);
    s.sync();  // dS^T is there; queries, mask and statistics have been read
    if (Config::slots == 1 && i + 1 < Config::query_tiles) vg_attention_copy_queries(s, a, i + 1);
    vg_attention_query_grads(s, a, tile, i);
  }
  const int row = first + 16 * s.strip(), col = s.part() * Config::share, rows = vg_min32(16, Config::tk - row);
  if (rows > 0) {
    constexpr int D = Config::head_dim;
    vg_store_rows(r.dk, s.key(a.dk, a.lddk, row) + col, a.lddk, rows, D - col, vg_rows_aligned(a.dk, a.lddk, D), 1.0f, 1.0f);
    vg_store_rows(r.dv, s.key(a.dv, a.lddv, row) + col, a.lddv, rows, D - col, vg_rows_aligned(a.dv, a.lddv, D), 1.0f, 1.0f);
  }
  s.sync();  // keys and statistics have been read
}

// A group's memory; its first head.
template <class Config>
VG_FN vg_attention_grad_group<Config> vg_attention_my_grad_group(const vg_call& c) {
  using X = typename Config::operand;
  constexpr int keys = Config::tile_keys * Config::ld, queries = Config::slots * Config::queries * Config::ld;
  const int id = vg_group_id<Config>(), thread = vg_thread() - id * Config::group_threads;
  const int head = c.block * Config::groups + id;
  X* k = (X*)(vg_shared() + id * Config::group_bytes);
  X *v = k + keys, *q = v + keys, *dout = q + queries, *ds = dout + queries;
  float* lse = (float*)(ds + Config::tile_keys * Config::ds_ld);
  float* delta = lse + Config::stat_rows;
  float* sums = (float*)c.workspace + (int64_t)head * Config::tq * Config::columns;
  return {k, v, q, dout, ds, lse, delta, {(uint8_t*)(delta + Config::stat_rows), 0}, sums, id, thread, head};
}

template <class Config, class E>
VG_FN void vg_attention_grad(const vg_call& c, const vg_attention_grad_args<E>& a) {
  static_assert(!Config::sums == (Config::key_tiles == 1 || sizeof(E) == 4), "STORAGE is not that of E");
  vg_attention_grad_group<Config> s = vg_attention_my_grad_group<Config>(c);
  if (vg_thread() >= Config::threads) return;
  const vg_weight_dropout drop(c.step(), a.drop_site, a.drop_thr);
  const int heads = c.batch() * Config::heads, stride = c.blocks * Config::groups;
  VG_NO_UNROLL for (; s.head < heads; s.head += stride)
    VG_NO_UNROLL for (int i = 0; i < Config::key_tiles; i++) vg_attention_key_tile(s, a, drop, i);
}
