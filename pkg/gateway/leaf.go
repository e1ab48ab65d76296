// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"container/list"
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
)

// leafCacheSize bounds the certificates kept for one sandbox; the least
// recently used goes first. Refused names of the refusal address count too.
const leafCacheSize = 256

// leafCache holds the certificates of one sandbox, all on the gateway's key.
type leafCache struct {
	calls singleflight.Group

	// mu guards what follows.
	mu   sync.Mutex
	byNm map[string]*list.Element
	lru  *list.List
}

type leafEntry struct {
	name  string
	cert  *tls.Certificate
	renew time.Time
}

func (c *leafCache) init() { c.byNm, c.lru = map[string]*list.Element{}, list.New() }

// get returns the certificate for name, from the keeper when there is none or
// the one there is nears its end.
func (c *leafCache) get(sb *sandbox, name string) (*tls.Certificate, error) {
	if cert := c.cached(name, time.Now()); cert != nil {
		return cert, nil
	}
	v, err, _ := c.calls.Do(name, func() (any, error) {
		ctx, cancel := context.WithTimeout(sb.ctx, sb.g.opt.Limits.Keeper)
		defer cancel()
		done, err := sb.owner.ask(ctx)
		if err != nil {
			return nil, fmt.Errorf("certificate for %q: %w", name, err)
		}
		defer done()
		der, caDER, err := sb.g.opt.Keeper.Leaf(ctx, sb.cfg.ID, name, &sb.g.key.PublicKey)
		if err != nil {
			return nil, fmt.Errorf("certificate for %q: %w", name, err)
		}
		e, err := newLeaf(sb.g.key, name, der, caDER)
		if err != nil {
			return nil, fmt.Errorf("certificate for %q: %w", name, err)
		}
		c.put(e)
		return e.cert, nil
	})
	if err != nil {
		return nil, err
	}
	return v.(*tls.Certificate), nil
}

func newLeaf(key *ecdsa.PrivateKey, name string, der, caDER []byte) (*leafEntry, error) {
	x, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	if pub, ok := x.PublicKey.(*ecdsa.PublicKey); !ok || !pub.Equal(&key.PublicKey) {
		return nil, errors.New("it is for another key")
	}
	if err := x.VerifyHostname(name); err != nil {
		return nil, err
	}
	life := x.NotAfter.Sub(x.NotBefore)
	chain := [][]byte{der}
	if len(caDER) > 0 {
		chain = append(chain, caDER)
	}
	return &leafEntry{name: name, renew: x.NotAfter.Add(-life / 4),
		cert: &tls.Certificate{Certificate: chain, PrivateKey: key, Leaf: x}}, nil
}

func (c *leafCache) cached(name string, now time.Time) *tls.Certificate {
	c.mu.Lock()
	defer c.mu.Unlock()
	el := c.byNm[name]
	if el == nil {
		return nil
	}
	e := el.Value.(*leafEntry)
	if now.After(e.renew) {
		return nil
	}
	c.lru.MoveToFront(el)
	return e.cert
}

func (c *leafCache) put(e *leafEntry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if el := c.byNm[e.name]; el != nil {
		el.Value = e
		c.lru.MoveToFront(el)
		return
	}
	c.byNm[e.name] = c.lru.PushFront(e)
	if c.lru.Len() > leafCacheSize {
		last := c.lru.Back()
		delete(c.byNm, last.Value.(*leafEntry).name)
		c.lru.Remove(last)
	}
}

// newTLSConfig is the server side of terminated connections.
func (sb *sandbox) newTLSConfig() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: []string{"h2", "http/1.1"},
		// Small first records help over a network that loses packets.
		DynamicRecordSizingDisabled: true,
		GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
			hc, ok := h.Conn.(*httpConn)
			if !ok {
				return nil, errors.New("gateway: not one of our connections")
			}
			return sb.leaves.get(sb, hc.name)
		},
	}
}
