// Philox against the Random123 test vectors, and the vector form of dropout
// against the scalar definition at every alignment.
#include "check.h"

using check::text;
using check::that;

namespace vg { inline namespace VG_ISA_NAME { namespace {

void known_answers() {
  // kat_vectors of Random123, philox4x32 10: counter, key, result.
  const uint32_t kat[][10] = {
      {0, 0, 0, 0, 0, 0, 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8},
      {0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd},
      {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344, 0xa4093822, 0x299f31d0, 0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1},
  };
  for (const auto& k : kat) {
    uint32_t x[4] = {k[0], k[1], k[2], k[3]};
    vu v[4] = {k[0], k[1], k[2], k[3]};
    ::vg_philox4x32(x, k[4], k[5]);
    vg_philox4x32(v, k[4], k[5]);
    for (int i = 0; i < 4; i++) {
      that(x[i] == k[6 + i], text("philox word %d: %08x, not %08x", i, x[i], k[6 + i]));
      for (int l = 0; l < kLanes; l++) that(v[i].v[l] == k[6 + i], "vector philox");
    }
  }
}

float want(const vg_step& s, uint32_t site, uint32_t thr, int64_t i) {
  const uint32_t draw = vg_dropout_draw(s.seed_lo, s.seed_hi, s.micro_step, site, (uint64_t)i);
  return draw >= thr ? 65536.0f / (65536.0f - (float)thr) : 0.0f;
}

void matches_scalar() {
  vg_step s = {};
  s.seed_lo = 0x12345678, s.seed_hi = 0x9abcdef0, s.micro_step = 17, s.dropout_on = 1;
  for (uint32_t thr : {1u, 6554u, 32768u, 65535u, 65536u})
    for (int64_t base : {(int64_t)0, (int64_t)5, (int64_t)127, (int64_t)128 * 1000003 + 77, ((int64_t)1 << 35) - 700}) {
      const vg_dropout drop(s, 3, thr);
      // Rows of an awkward length, walked as kernels do; then jumps back.
      int64_t index = base;
      for (int row = 0; row < 12; row++)
        for (int col = 0; col < 37; col += kLanes) {
          const int n = 37 - col < kLanes ? 37 - col : kLanes;
          const vf got = drop.scale<vf>(index + col, n), once = vg_dropout_scale<vf>(s, 3, thr, index + col, n);
          for (int l = 0; l < n; l++) {
            that(got.v[l] == want(s, 3, thr, index + col + l), text("thr %u index %ld lane %d", thr, index + col, l));
            that(once.v[l] == got.v[l], "uncached");
          }
          if (col + kLanes >= 37) index += row % 5 == 4 ? -74 : 37;
          if (index < 0) index = 0;
        }
    }
}

// Jumps about block boundaries, so that every state of the cache is left in
// every direction.
void any_order() {
  vg_step s = {};
  s.seed_lo = 3, s.dropout_on = 1;
  const vg_dropout drop(s, 9, 20000);
  check::Random r(1);
  for (int i = 0; i < 20000; i++) {
    const int64_t index = 128 * (int64_t)(1 + r.next() % 4) + (int64_t)(r.next() % 41) - 20;
    const int n = 1 + (int)(r.next() % kLanes);
    const vf got = drop.scale<vf>(index, n);
    for (int l = 0; l < n; l++) that(got.v[l] == want(s, 9, 20000, index + l), text("jump %d to %ld lane %d", i, index, l));
  }
}

void statistics() {
  vg_step s = {};
  s.seed_lo = 1, s.dropout_on = 1;
  const vg_dropout drop(s, 0, 6554);  // p = 0.1
  const int n = 1 << 20;
  double kept = 0, pairs = 0;
  float last = 0;
  for (int i = 0; i < n; i += kLanes) {
    const vf m = drop.scale<vf>(i, kLanes);
    for (int l = 0; l < kLanes; l++) {
      kept += m.v[l] > 0;
      pairs += m.v[l] > 0 && last > 0;
      last = m.v[l];
    }
  }
  // Four standard deviations of a binomial.
  const double p = 1 - 6554.0 / 65536, sd = sqrt(n * p * (1 - p));
  that(fabs(kept - n * p) < 4 * sd, text("kept %g of %d", kept, n));
  that(fabs(pairs - n * p * p) < 8 * sd, text("kept neighbours %g of %d", pairs, n));
  double paths = 0;
  for (int i = 0; i < 4096; i++) paths += vg_drop_path_scale(s, 1, 32768, i) > 0;
  that(fabs(paths - 2048) < 128, text("kept paths %g of 4096", paths));
  that(vg_drop_path_scale(s, 1, 32768, 9) == want(s, 1, 32768, 9), "drop path");
}

void off() {
  vg_step s = {};
  that(vg_dropout(s, 0, 65536).scale<vf>(5, kLanes).v[0] == 1 && vg_drop_path_scale(s, 0, 65536, 2) == 1, "dropout off");
  s.dropout_on = 1;
  that(vg_dropout(s, 0, 0).scale<vf>(5, kLanes).v[0] == 1 && vg_drop_path_scale(s, 0, 0, 2) == 1, "rate 0");
  that(vg_dropout(s, 0, 65536).scale<vf>(5, kLanes).v[0] == 0 && vg_drop_path_scale(s, 0, 65536, 2) == 0, "rate 1");
}

}}}  // namespace

int main() {
  vg::known_answers();
  vg::matches_scalar();
  vg::any_order();
  vg::statistics();
  vg::off();
  return check::finish();
}
