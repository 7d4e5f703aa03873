// A steady load of DescribeJob calls for the interop suite: grpc-go at a rate that Python's clients cannot keep.
//
// The calls are the same in every run: nine in ten ask about one of the hot jobs in turn; the others ask about cold jobs,
// each of which is asked about twice, 100 calls of the whole apart. The load ends after -calls, or when its standard input
// does. What became of the calls is then printed as one line of JSON.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
)

const (
	method = "/glacier.jobs.v1.JobService/DescribeJob"
	// Of DescribeJobRequest in job_service.proto.
	vaultNameField, jobIDField = 2, 3
	oneColdIn                  = 10
	askedAgainAfter            = 100
	tick                       = 5 * time.Millisecond
	deadline                   = 10 * time.Second
	failuresShown              = 5
)

// Messages as their bytes: three strings need no generated code.
type rawCodec struct{}

func (rawCodec) Name() string { return "proto" }

func (rawCodec) Marshal(message any) ([]byte, error) {
	return *message.(*[]byte), nil
}

func (rawCodec) Unmarshal(data []byte, message any) error {
	*message.(*[]byte) = slices.Clone(data)
	return nil
}

type report struct {
	Calls    int            `json:"calls"`
	Jobs     int            `json:"jobs"`
	Seconds  float64        `json:"seconds"`
	Codes    map[string]int `json:"codes"`
	P50      float64        `json:"p50_ms"`
	P99      float64        `json:"p99_ms"`
	Slowest  float64        `json:"slowest_ms"`
	Failures []string       `json:"failures"`
}

// The job that call number `call` asks about.
func job(call, hot int) string {
	if call%oneColdIn != 0 {
		return fmt.Sprintf("hot-%d", call%hot)
	}
	step := call / oneColdIn
	if again := step/2 - askedAgainAfter/oneColdIn/2; step%2 == 1 && again >= 0 {
		return fmt.Sprintf("cold-%d", again)
	}
	return fmt.Sprintf("cold-%d", step/2)
}

func request(vault, job string) []byte {
	message := protowire.AppendTag(nil, vaultNameField, protowire.BytesType)
	message = protowire.AppendString(message, vault)
	message = protowire.AppendTag(message, jobIDField, protowire.BytesType)
	return protowire.AppendString(message, job)
}

func main() {
	target := flag.String("target", "", "HOST:PORT")
	rate := flag.Int("rate", 2000, "calls per second")
	calls := flag.Int("calls", 0, "how many; 0 for as many as fit until standard input ends")
	hot := flag.Int("hot", 300, "how many hot jobs there are")
	flag.Parse()
	if err := run(*target, *rate, *calls, *hot); err != nil {
		fmt.Fprintln(os.Stderr, "load:", err)
		os.Exit(1)
	}
}

func run(target string, rate, calls, hot int) error {
	connection, err := grpc.NewClient("passthrough:///"+target,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodec(rawCodec{})),
		// What fails must be seen to fail.
		grpc.WithDisableRetry())
	if err != nil {
		return err
	}
	defer connection.Close()

	ended := make(chan struct{})
	if calls == 0 {
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin)
			close(ended)
		}()
	}

	var (
		lock      sync.Mutex
		waiting   sync.WaitGroup
		durations []time.Duration
		result    = report{Codes: map[string]int{}, Failures: []string{}}
		asked     = map[string]struct{}{}
	)
	call := func(job string) {
		defer waiting.Done()
		ctx, cancel := context.WithTimeout(context.Background(), deadline)
		defer cancel()
		message, answer := request("load", job), []byte(nil)
		started := time.Now()
		err := connection.Invoke(ctx, method, &message, &answer)
		took := time.Since(started)
		if err == nil && len(answer) == 0 {
			err = errors.New("an empty answer")
		}
		lock.Lock()
		defer lock.Unlock()
		durations = append(durations, took)
		result.Codes[status.Code(err).String()]++
		if err != nil && len(result.Failures) < failuresShown {
			result.Failures = append(result.Failures, fmt.Sprintf("%s after %v: %v", job, took, err))
		}
	}

	started := time.Now()
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	sent := 0
sending:
	for calls == 0 || sent < calls {
		select {
		case <-ended:
			break sending
		case <-ticker.C:
		}
		due := int(time.Since(started).Seconds() * float64(rate))
		for ; sent < due && (calls == 0 || sent < calls); sent++ {
			job := job(sent, hot)
			asked[job] = struct{}{}
			waiting.Add(1)
			go call(job)
		}
	}
	result.Seconds = time.Since(started).Seconds()
	waiting.Wait()

	if sent == 0 {
		return errors.New("no call was made")
	}
	slices.Sort(durations)
	milliseconds := func(share float64) float64 {
		return float64(durations[int(share*float64(len(durations)-1))].Microseconds()) / 1000
	}
	result.Calls, result.Jobs = sent, len(asked)
	result.P50, result.P99, result.Slowest = milliseconds(0.5), milliseconds(0.99), milliseconds(1)
	return json.NewEncoder(os.Stdout).Encode(result)
}
