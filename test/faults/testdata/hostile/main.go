// SPDX-License-Identifier: Apache-2.0

// Hostile runs inside a sandbox and sends the gateway what no honest program
// sends: on every port that answers, and on DNS. It ends by itself.
//
//	hostile WEB-HOST:PORT
//
// It prints how many connections and packets it sent. What the gateway answers
// does not matter here: the test looks at the gateway, and at others it serves.
package main

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	patience = 5 * time.Second
	holders  = 1500 // connections that are held open: more than one sandbox may have
	holdFor  = 8 * time.Second
)

var sent atomic.Int64

func main() {
	web := os.Args[1]
	targets := []string{"api.openai.com:443", "refused.example:443", "refused.example:80", web}
	hold(targets)
	var wg sync.WaitGroup
	for _, t := range targets {
		for _, p := range payloads() {
			wg.Go(func() { once(t, p) })
		}
	}
	wg.Go(dnsOverUDP)
	wg.Go(dnsOverTCP)
	wg.Go(func() { trickle(web) })
	wg.Wait()
	fmt.Println("sent", sent.Load())
}

func dial(addr string) net.Conn {
	c, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		return nil
	}
	sent.Add(1)
	_ = c.SetDeadline(time.Now().Add(patience))
	return c
}

// once sends a payload, reads what comes, and goes.
func once(addr string, payload []byte) {
	c := dial(addr)
	if c == nil {
		return
	}
	defer c.Close()
	_, _ = c.Write(payload)
	_, _ = io.Copy(io.Discard, io.LimitReader(c, 1<<20))
}

// hold opens connections that say little or nothing, and stays.
func hold(targets []string) {
	var wg sync.WaitGroup
	slots := make(chan struct{}, 100)
	hello := clientHello()
	for i := range holders {
		slots <- struct{}{}
		wg.Go(func() {
			c := dial(targets[i%len(targets)])
			<-slots
			if c == nil {
				return
			}
			defer c.Close()
			switch i % 3 {
			case 0: // silence
			case 1:
				_, _ = c.Write(hello[:len(hello)/2])
			case 2:
				_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\nX-A: ")
			}
			time.Sleep(holdFor)
		})
	}
	wg.Wait()
}

// trickle is slow-loris: one header, a byte at a time, for ever.
func trickle(addr string) {
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			c := dial(addr)
			if c == nil {
				return
			}
			defer c.Close()
			_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: web.example\r\n")
			for range 40 {
				if _, err := io.WriteString(c, "X-A: b\r\n"); err != nil {
					return
				}
				time.Sleep(100 * time.Millisecond)
			}
		})
	}
	wg.Wait()
}

// clientHello is one that a real client sends.
func clientHello() []byte {
	a, b := net.Pipe()
	go func() { _ = tls.Client(a, &tls.Config{ServerName: "api.openai.com"}).Handshake() }() //nolint:gosec // nothing is received
	buf := make([]byte, 1<<14)
	n, _ := b.Read(buf)
	b.Close()
	return buf[:n]
}

func payloads() [][]byte {
	hello := clientHello()
	out := [][]byte{nil, {0}, []byte("\x16\x03\x01"), []byte("\x16\x03\x01\xff\xff"), []byte("\x80\x2e\x01\x00\x02"), []byte("SSH-2.0-x\r\n")}
	for n := 1; n < len(hello); n += len(hello)/12 + 1 {
		out = append(out, hello[:n])
	}
	for range 12 {
		bad := bytes.Clone(hello)
		for range 8 {
			bad[5+rand.IntN(len(bad)-5)] = byte(rand.IntN(256))
		}
		out = append(out, bad)
	}
	out = append(out,
		bytes.Repeat([]byte("\x16\x03\x01\x00\x00"), 50_000),                                           // records of nothing
		bytes.Repeat([]byte("\x16\x03\x01\x00\x01\x01"), 20_000),                                       // one byte a record
		append([]byte("\x16\x03\x01\x40\x00\x01\xff\xff\xff"), bytes.Repeat([]byte{0}, 1<<20)...),      // a ClientHello of 16 MB
		[]byte("GET / HTTP/1.1\r\nHost: web.example\r\nX-Long: "+strings.Repeat("a", 4<<20)),           // one header for ever
		[]byte("GET / HTTP/1.1\r\nHost: web.example\r\n"+strings.Repeat("X-A: b\r\n", 200_000)+"\r\n"), // many
		[]byte("GET /"+strings.Repeat("a", 2<<20)+" HTTP/1.1\r\nHost: web.example\r\n\r\n"),            // a long line
		[]byte("POST / HTTP/1.1\r\nHost: web.example\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: web.example\r\n\r\n"),
		[]byte("GET / HTTP/1.1\r\nHost: web.example\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n"),
		[]byte("GET / HTTP/1.1\r\nHost: web.example\r\nContent-Length: -1\r\n\r\n"),
		[]byte("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
		[]byte("GET / HTTP/9.9\r\n\r\n"), []byte("\r\n\r\n\r\n"), []byte("\x00\x00\x00\x00"),
		[]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff"),                            // HTTP/2 of nonsense
		[]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"+strings.Repeat("\x00\x00\x00\x04\x00\x00\x00\x00\x00", 20_000)), // SETTINGS for ever
	)
	return out
}

// question is a DNS query for a name that is refused.
func question(name string) []byte {
	q := []byte{0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0}
	for _, l := range strings.Split(name, ".") {
		q = append(append(q, byte(len(l))), l...)
	}
	return append(q, 0, 0, 1, 0, 1)
}

func dnsOverUDP() {
	c, err := net.Dial("udp", "127.0.0.53:53")
	if err != nil {
		return
	}
	defer c.Close()
	q := question("refused.example")
	for i := range 3000 {
		b := bytes.Clone(q)
		switch i % 6 {
		case 0:
			b = b[:rand.IntN(len(b))]
		case 1:
			for range 6 {
				b[rand.IntN(len(b))] = byte(rand.IntN(256))
			}
		case 2:
			binary.BigEndian.PutUint16(b[4:], 0xffff) // questions that are not there
		case 3:
			b = append(b[:12], 0xc0, 0x0c, 0, 1, 0, 1) // a name that points to itself
		case 4:
			b = make([]byte, rand.IntN(9000))
			for j := range b {
				b[j] = byte(rand.IntN(256))
			}
		case 5:
			b = question(strings.Repeat("a", 63) + "." + strings.Repeat("b", 63) + "." + strings.Repeat("c", 63) + "." + strings.Repeat("d", 63))
		}
		if _, err := c.Write(b); err == nil {
			sent.Add(1)
		}
	}
}

func dnsOverTCP() {
	for i := range 200 {
		c := dial("127.0.0.53:53")
		if c == nil {
			continue
		}
		q := question("refused.example")
		var b []byte
		switch i % 5 {
		case 0:
			b = []byte{0, 0}
		case 1:
			b = append([]byte{0xff, 0xff}, q...)
		case 2:
			b = []byte{0}
		case 3:
			for range 2000 { // many at once
				b = append(binary.BigEndian.AppendUint16(b, uint16(len(q))), q...)
			}
		case 4:
			b = append(binary.BigEndian.AppendUint16(nil, uint16(len(q))), q[:len(q)-1]...)
		}
		_, _ = c.Write(b)
		if i%10 == 0 {
			_, _ = io.Copy(io.Discard, io.LimitReader(c, 1<<20))
		}
		c.Close()
	}
}
