package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/vitgen/vitgen/bench/measure"
	"github.com/vitgen/vitgen/runtime/cpu/isa"
)

// compiling is what it takes from a spec to a trainer, and peers to the end of
// their first step.
type compiling struct {
	Spec string `json:"spec"`
	// Compile is `vitgen compile` alone. Native is the Go tool and g++ on what it
	// wrote, for this machine's instruction set alone, as compilers that run with the
	// program have it; Build the same for all; Link that again with nothing left to
	// compile. All are whole processes.
	Compile timing      `json:"compile"`
	ISA     string      `json:"isa"` // Native's
	Native  timing      `json:"build_native_cold"`
	Build   timing      `json:"build_cold"`
	Link    timing      `json:"build_again"`
	Peers   []*coldPeer `json:"peers"`
	// Shares are Compile and a cold build over torch.compile's first step of the
	// same round.
	NativeShare *measure.Spread `json:"share_native,omitempty"`
	Share       *measure.Spread `json:"share,omitempty"`
}

// coldPeer is a peer's first training step, from empty caches.
type coldPeer struct {
	Name   string          `json:"name"`
	MS     *measure.Spread `json:"ms,omitempty"`
	AllMS  []float64       `json:"all_ms,omitempty"`
	Failed string          `json:"failed,omitempty"`
}

// timing is of whole processes.
type timing struct {
	MS      measure.Spread `json:"ms"`
	AllMS   []float64      `json:"all_ms"`
	PeakRSS int64          `json:"peak_rss_bytes"` // of the largest process
}

func (t *timing) add(u measure.Usage) {
	t.AllMS = append(t.AllMS, float64(u.Wall)/1e6)
	t.MS = measure.SpreadOf(t.AllMS)
	t.PeakRSS = max(t.PeakRSS, u.PeakRSS)
}

// compileGoal is the share of torch.compile's first step.
const compileGoal = 1.0 / 3

// compilingPeers are those whose first step compiles. The goal is about
// torch.compile.
var compilingPeers = []string{"torch-compile", "jax"}

// measureCompile lets vitgen and the peers compile in turns.
func (s *settings) measureCompile(ctx context.Context, r *row, rounds int) (*compiling, error) {
	c := &compiling{Spec: r.source.file, ISA: isa.Machine().String()}
	for _, name := range compilingPeers {
		c.Peers = append(c.Peers, &coldPeer{Name: name})
	}
	for n := range rounds {
		if err := c.buildOnce(ctx); err != nil {
			return nil, err
		}
		logf("%s, round %d of %d  vitgen compile %.0f ms, cold build for %s %.1f s, for all %.1f s\n", compilePart, n+1, rounds,
			c.Compile.AllMS[n], c.ISA, c.Native.AllMS[n]/1e3, c.Build.AllMS[n]/1e3)
		for _, p := range c.Peers {
			if p.Failed == "" {
				s.coldPeer(ctx, r, p, n)
			}
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
	c.share()
	return c, nil
}

// buildOnce compiles a spec into folders that are not there, and builds packages
// that the Go tool has not seen: their import paths are new, so that none of their
// C++ or Go is in the tool's cache, while the packages they import are.
func (c *compiling) buildOnce(ctx context.Context) error {
	err := c.buildCold(ctx, &c.Compile, isa.Machine().Tag(), &c.Native)
	if err != nil {
		return err
	}
	return c.buildCold(ctx, nil, "", &c.Build, &c.Link)
}

// buildCold compiles and builds with a build tag, or none, as often as there are
// timings to add to; compiling is timed if there is one for it.
func (c *compiling) buildCold(ctx context.Context, compiling *timing, tag string, builds ...*timing) error {
	dir, err := os.MkdirTemp(scratchDir, fmt.Sprintf("build-%d-", time.Now().UnixNano()))
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	pkg := filepath.Join(dir, "vit")
	_, u, err := measure.Process{Argv: []string{binary("vitgen-compiler"), "compile", c.Spec, "--target", "cpu", "-o", pkg}}.Run(ctx)
	if err != nil {
		return err
	}
	if compiling != nil {
		compiling.add(u)
	}
	for _, into := range builds {
		trainer := filepath.Join(dir, "trainer")
		if err := os.RemoveAll(trainer); err != nil {
			return err
		}
		_, u, err := measure.Process{Argv: []string{"go", "build", "-tags", tag, "-o", trainer, "./" + filepath.Join(pkg, "trainer")}}.Run(ctx)
		if err != nil {
			return err
		}
		into.add(u)
	}
	return nil
}

// coldPeer has a peer compile its training step with nothing in its cache; what
// the last round leaves there serves the row.
func (s *settings) coldPeer(ctx context.Context, r *row, p *coldPeer, n int) {
	all := s.allPeers(r)
	i := slices.IndexFunc(all, func(c contestant) bool { return c.name == p.Name })
	if i < 0 {
		p.Failed = "it takes no part"
		return
	}
	err := os.RemoveAll(all[i].cache)
	var ms float64
	if err == nil {
		ms, err = coldStep(ctx, all[i])
	}
	if err != nil {
		p.Failed, p.MS = err.Error(), nil
		logf("%s  %s failed: %v\n", compilePart, p.Name, err)
		return
	}
	p.AllMS = append(p.AllMS, ms)
	spread := measure.SpreadOf(p.AllMS)
	p.MS = &spread
	logf("%s, round %d  %s %.1f s to the end of the first step\n", compilePart, n+1, p.Name, ms/1e3)
}

// share compares with torch.compile, where it took part in all rounds.
func (c *compiling) share() {
	torch := c.Peers[0]
	if torch.Failed != "" {
		return
	}
	of := func(build *timing) *measure.Spread {
		var shares []float64
		for n, ms := range torch.AllMS {
			shares = append(shares, (c.Compile.AllMS[n]+build.AllMS[n])/ms)
		}
		spread := measure.SpreadOf(shares)
		return &spread
	}
	c.NativeShare, c.Share = of(&c.Native), of(&c.Build)
}

// goals are two lines: what torch.compile makes is for the machine that it runs on,
// so the first compares like with like; the second is what vitgen builds if not told
// otherwise.
func (c *compiling) goals() []goal {
	peer := ""
	if torch := c.Peers[0]; torch.MS != nil {
		peer = fmt.Sprintf("%s's first step, %.1f s", torch.Name, torch.MS.Median/1e3)
	}
	work := "`vitgen compile` and C++ build, cold, "
	return []goal{
		{Work: work + "for this machine, as the peer", Peer: peer, Pruned: want(c.NativeShare, share, compileGoal, true)},
		{Work: work + "for all instruction sets", Peer: peer, Pruned: want(c.Share, share, compileGoal, true)},
	}
}
