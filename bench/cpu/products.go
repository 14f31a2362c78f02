package main

import (
	"context"
	"fmt"
	"strconv"

	"github.com/vitgen/vitgen/bench/measure"
)

// products is what bench/roofline says of matrix products alone at the shapes of
// a model.
type products struct {
	What   string          `json:"what"`
	OfPeak *measure.Spread `json:"of_peak"` // of the runs
	PeakGF float64         `json:"peak_gflops"`
	ISA    string          `json:"isa"`
	Runs   []productsRun   `json:"runs"`
}

// productsRun is a run's JSON, as far as it is used.
type productsRun struct {
	ISA        string    `json:"isa"`
	PeakGFLOPS float64   `json:"peak_gflops"`
	OfPeak     float64   `json:"of_peak_weighted"`
	Products   []product `json:"products"`
}

type product struct {
	Kind   string  `json:"kind"` // nt, nn or tn
	M      int     `json:"m"`
	N      int     `json:"n"`
	K      int     `json:"k"`
	Count  int     `json:"count"`
	GFLOPS float64 `json:"gflops"`
	OfPeak float64 `json:"of_peak"`
}

// gemmGoal is the share of the machine's FMA peak.
const gemmGoal = 0.85

// measureAllProducts is about the models whose steps are made of products.
func (s *settings) measureAllProducts(ctx context.Context, r *result) error {
	for _, src := range []*source{&vit, &vitS16} {
		p, err := s.measureProducts(ctx, src, s.rounds(productRuns))
		if err != nil {
			return err
		}
		r.Products = append(r.Products, p)
	}
	return nil
}

// measureProducts runs bench/roofline several times.
func (s *settings) measureProducts(ctx context.Context, src *source, runs int) (*products, error) {
	p := &products{What: src.label}
	var shares, peaks []float64
	for n := range runs {
		var r productsRun
		argv := []string{binary("roofline"), "--json", "--threads", strconv.Itoa(s.Threads), "--spec", src.file}
		if b := src.set["train.batch"]; b != "" {
			argv = append(argv, "--batch", b)
		}
		if err := ask(ctx, &r, argv...); err != nil {
			return nil, err
		}
		if r.OfPeak <= 0 || len(r.Products) == 0 {
			return nil, fmt.Errorf("%s: no products in its output", argv)
		}
		p.Runs, p.ISA = append(p.Runs, r), r.ISA
		shares, peaks = append(shares, r.OfPeak), append(peaks, r.PeakGFLOPS)
		logf("%s, run %d of %d  %.0f %% of %.0f GFLOP/s\n", gemmPart, n+1, runs, 100*r.OfPeak, r.PeakGFLOPS)
	}
	spread := measure.SpreadOf(shares)
	p.OfPeak, p.PeakGF = &spread, measure.Median(peaks)
	return p, nil
}

func (p *products) goal() goal {
	return goal{
		Work: "GEMM alone, " + p.What, Peer: fmt.Sprintf("FMA peak, %.0f GFLOP/s", p.PeakGF),
		Unpruned: want(p.OfPeak, percent, gemmGoal, false),
	}
}
