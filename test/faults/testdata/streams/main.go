// SPDX-License-Identifier: Apache-2.0

// Streams runs inside a sandbox: it opens streamed model calls, half of them on
// connections of their own and half on HTTP/2, of both dialects in turn, reads all
// of them to their end, makes one more call of each dialect until it is answered,
// and writes what came of it to a file.
//
//	streams FILE N
//
// FILE.open is there once each stream has said something.
package main

import (
	"bufio"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Result is what came of all.
type Result struct {
	Whole  int            // ended as they should
	Failed int            // ended with an error of the dialect
	Broke  map[string]int // the connection broke, by what was seen
	Early  int            // ended without an end and without an error: it looks whole and is not
	After  []string       // the calls afterwards that were never answered
}

var calls = []struct{ url, body, end string }{
	{"https://api.openai.com/v1/chat/completions", `{"model":"gpt-4o","stream":%v,"messages":[{"role":"user","content":"hi"}]}`, "data: [DONE]"},
	{"https://api.anthropic.com/v1/messages", `{"model":"claude-x","max_tokens":64,"stream":%v,"messages":[{"role":"user","content":"hi"}]}`, `"message_stop"`},
}

func main() {
	n, err := strconv.Atoi(os.Args[2])
	if err != nil {
		panic(err)
	}
	shared := &http.Client{Transport: &http.Transport{ForceAttemptHTTP2: true}}
	var said, ended sync.WaitGroup
	var mu sync.Mutex
	r := Result{Broke: map[string]int{}}
	for i := range n {
		client := shared
		if i%4 < 2 {
			client = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{NextProtos: []string{"http/1.1"}}}}
		}
		said.Add(1)
		ended.Add(1)
		go func() {
			defer ended.Done()
			once := sync.OnceFunc(said.Done)
			defer once()
			how := stream(client, i%2, once)
			mu.Lock()
			defer mu.Unlock()
			switch how {
			case "whole":
				r.Whole++
			case "failed":
				r.Failed++
			case "early":
				r.Early++
			default:
				r.Broke[how]++
			}
		}()
	}
	said.Wait()
	write(os.Args[1]+".open", n)
	ended.Wait()
	for i := range calls {
		if err := after(i); err != nil {
			r.After = append(r.After, err.Error())
		}
	}
	write(os.Args[1], r)
}

func write(file string, v any) {
	b, err := json.Marshal(v)
	if err == nil {
		err = os.WriteFile(file+".new", b, 0o644)
	}
	if err == nil {
		err = os.Rename(file+".new", file)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func ask(client *http.Client, i int, stream bool) (*http.Response, error) {
	req, err := http.NewRequest(http.MethodPost, calls[i].url, strings.NewReader(fmt.Sprintf(calls[i].body, stream)))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer placeholder")
	return client.Do(req)
}

// stream reads one stream and says how it ended.
func stream(client *http.Client, i int, said func()) string {
	resp, err := ask(client, i, true)
	if err != nil {
		return "before its head: " + err.Error()
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return resp.Status
	}
	failed, whole := false, false
	lines := bufio.NewReader(resp.Body)
	for {
		line, err := lines.ReadString('\n')
		if strings.Contains(line, "word") {
			said()
		}
		failed = failed || strings.HasPrefix(line, "event: error")
		whole = whole || strings.Contains(line, calls[i].end)
		switch {
		case err == io.EOF && failed:
			return "failed"
		case err == io.EOF && whole:
			return "whole"
		case err == io.EOF:
			return "early"
		case err != nil:
			return kind(err)
		}
	}
}

// kind is an error without addresses.
func kind(err error) string {
	s := err.Error()
	if i := strings.LastIndex(s, ": "); i >= 0 {
		s = s[i+2:]
	}
	return s
}

// after makes calls until one is answered.
func after(i int) error {
	client := &http.Client{Timeout: 10 * time.Second}
	var last error
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		resp, err := ask(client, i, false)
		if err == nil {
			b, rerr := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			if rerr == nil && resp.StatusCode == http.StatusOK && json.Valid(b) {
				return nil
			}
			err = fmt.Errorf("%s: %v", resp.Status, rerr)
		}
		last = err
	}
	return last
}
