// Prometheus' own discovery of what Consul lists, as the library that Prometheus is made of.
// It prints the groups of targets that it finds, one JSON object a line, as they change.
package main

import (
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/discovery"
	"github.com/prometheus/prometheus/discovery/consul"
	"github.com/prometheus/prometheus/discovery/targetgroup"
)

func main() {
	config := consul.DefaultSDConfig
	config.Server = os.Args[1]
	config.RefreshInterval = model.Duration(time.Second)
	registry := prometheus.NewRegistry()
	discoverer, err := config.NewDiscoverer(discovery.DiscovererOptions{
		Logger:  slog.New(slog.NewTextHandler(os.Stderr, nil)),
		Metrics: config.NewDiscovererMetrics(registry, discovery.NewRefreshMetrics(registry)),
	})
	if err != nil {
		panic(err)
	}
	changes := make(chan []*targetgroup.Group)
	go discoverer.Run(context.Background(), changes)
	lines := json.NewEncoder(os.Stdout)
	for groups := range changes {
		for _, group := range groups {
			found := map[string]any{"source": group.Source, "targets": group.Targets, "labels": group.Labels}
			if err := lines.Encode(found); err != nil {
				panic(err)
			}
		}
	}
}
