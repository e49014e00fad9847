// The short form of a chat, from 100 to 200 people who each ask once a second. How to run it: docs/loadtesting.md.
import { check, sleep } from 'k6';
import http from 'k6/http';

const url = `${__ENV.LLMMESH_URL || 'http://127.0.0.1:8080'}/v1/chat/completions`;
const params = {
  headers: { 'Content-Type': 'application/json', Authorization: `Bearer ${__ENV.LLMMESH_API_KEY}` },
};
const question = JSON.stringify({ prompt: 'Explain quantum computing in simple terms', stream: false });

export const options = {
  stages: [
    { duration: '2m', target: 100 },
    { duration: '5m', target: 100 },
    { duration: '2m', target: 200 },
    { duration: '5m', target: 200 },
    { duration: '2m', target: 0 },
  ],
  thresholds: {
    http_req_duration: ['p(95)<100'],
    http_req_failed: ['rate<0.01'],
    checks: ['rate>0.99'],
  },
};

// The first answer comes from the model; everybody after it is answered by the cache.
export function setup() {
  const first = http.post(url, question, { ...params, timeout: '120s' });
  if (first.status !== 200) {
    throw new Error(`${url} answers ${first.status}: ${first.body}`);
  }
}

export default function () {
  const answer = http.post(url, question, params);
  check(answer, {
    'is answered': (reply) => reply.status === 200,
    'within 100 ms': (reply) => reply.timings.duration < 100,
    'has content': (reply) => reply.json('content') !== undefined,
  });
  sleep(1);
}
