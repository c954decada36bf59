import type { Socket } from "node:net";
import type { ConnectionEnd } from "../../telemetry/index.ts";
import { IDLE_SHARE } from "./limits.ts";

/*
 * Who may hold a connection. A connection costs a descriptor and some memory from the moment it is accepted, and what
 * is accepted cannot be told from an attack before its first request has proven a key. A plain maximum fails: whoever
 * opens so many connections and says nothing keeps everybody else out. So there is always room for a newcomer as long
 * as somebody has less right to stay: the oldest connection that has said nothing, else the oldest whose key is not
 * proven yet, else the one that has been idle longest. Idle ones are protected up to a share of the places only, for
 * clients who leave theirs open would otherwise leave newcomers so few that these close each other's. Only when all
 * connections are at work for clients with good keys is a new one refused. A flood of strangers then shortens the time
 * that a newcomer has to prove itself, and does nothing else.
 */

export interface ConnectionLimits {
  readonly connectionsMax: number;
  /** Of one address. */
  readonly perAddressMax: number;
}

/** What a connection does, from the least right to stay to the most. */
const PHASES = ["silent", "unproven", "idle", "working"] as const;
type Phase = (typeof PHASES)[number];
type Evictable = Exclude<Phase, "working">;
const EVICTABLE: readonly Evictable[] = ["silent", "unproven", "idle"];

/** Connections of one address, or all, by phase; a Set keeps the order in which they came into it. */
type ByPhase = Readonly<Record<Phase, Set<Connection>>>;

const emptyByPhase = (): ByPhase => ({
  silent: new Set(),
  unproven: new Set(),
  idle: new Set(),
  working: new Set(),
});

const sizeOf = (byPhase: ByPhase): number => PHASES.reduce((sum, phase) => sum + byPhase[phase].size, 0);

/** `places`: how many connections there may be in `byPhase`. */
const firstEvictable = (byPhase: ByPhase, places: number): Connection | null => {
  if (byPhase.idle.size > places * IDLE_SHARE) for (const connection of byPhase.idle) return connection;
  for (const phase of EVICTABLE) for (const connection of byPhase[phase]) return connection;
  return null;
};

const peerOf = ({ remoteAddress = "", remotePort = 0 }: Socket): string => `${remoteAddress} ${remotePort}`;

interface Connection {
  readonly socket: Socket;
  readonly address: string;
  phase: Phase;
  /** A request with a good key has come. */
  proven: boolean;
  /** Requests whose answers are not out yet. */
  requests: number;
}

export class Connections {
  readonly #limits: ConnectionLimits;
  readonly #onEnd: (end: ConnectionEnd, address: string) => void;
  readonly #all: ByPhase = emptyByPhase();
  readonly #byAddress = new Map<string, ByPhase>();
  readonly #bySocket = new WeakMap<Socket, Connection>();
  /** By the other end's address and port: a TLS socket is another object than the one it was made of. */
  readonly #byPeer = new Map<string, Connection>();

  /** `onEnd` is told of each connection that was closed to keep the limits. */
  constructor(limits: ConnectionLimits, onEnd: (end: ConnectionEnd, address: string) => void) {
    this.#limits = limits;
    this.#onEnd = onEnd;
  }

  get count(): number {
    return sizeOf(this.#all);
  }

  /** Connections by what they do. */
  get counts(): Readonly<Record<Phase, number>> {
    const { silent, unproven, idle, working } = this.#all;
    return { silent: silent.size, unproven: unproven.size, idle: idle.size, working: working.size };
  }

  /** Takes a connection in, for which another may be closed; false when there is no room and none may. */
  admit(socket: Socket): boolean {
    const address = socket.remoteAddress ?? "";
    const ofAddress = this.#byAddress.get(address) ?? emptyByPhase();
    const full =
      (sizeOf(ofAddress) >= this.#limits.perAddressMax && !this.#evict(ofAddress, this.#limits.perAddressMax)) ||
      (this.count >= this.#limits.connectionsMax && !this.#evict(this.#all, this.#limits.connectionsMax));
    if (full) {
      this.#onEnd("refused", address);
      return false;
    }
    const connection: Connection = { socket, address, phase: "silent", proven: false, requests: 0 };
    // Again: an eviction may have forgotten the address.
    const group = this.#byAddress.get(address) ?? ofAddress;
    this.#byAddress.set(address, group);
    group.silent.add(connection);
    this.#all.silent.add(connection);
    this.#bySocket.set(socket, connection);
    const peer = peerOf(socket);
    this.#byPeer.set(peer, connection);
    socket.once("close", () => {
      this.#remove(connection);
      if (this.#byPeer.get(peer) === connection) this.#byPeer.delete(peer);
    });
    return true;
  }

  #find(socket: Socket): Connection | undefined {
    const known = this.#bySocket.get(socket) ?? this.#byPeer.get(peerOf(socket));
    if (known !== undefined) this.#bySocket.set(socket, known);
    return known;
  }

  /**
   * A request's head has come; false when the connection is closed, or has too many requests without an answer, for
   * which it is closed now.
   */
  begin(socket: Socket, pipelinedMax: number): boolean {
    const connection = this.#find(socket);
    if (connection === undefined || socket.destroyed) return false;
    if (connection.requests >= pipelinedMax) {
      this.#onEnd("pipelined", connection.address);
      socket.destroy();
      return false;
    }
    connection.requests += 1;
    this.#move(connection, connection.proven ? "working" : "unproven");
    return true;
  }

  /** The request that is being served has proven its key. */
  prove(socket: Socket): void {
    const connection = this.#find(socket);
    if (connection === undefined) return;
    connection.proven = true;
    if (connection.requests > 0) this.#move(connection, "working");
  }

  isProven(socket: Socket): boolean {
    return this.#find(socket)?.proven === true;
  }

  /** The answer to a request is out, or never will be. */
  end(socket: Socket): void {
    const connection = this.#find(socket);
    if (connection === undefined) return;
    connection.requests -= 1;
    if (connection.requests === 0) this.#move(connection, connection.proven ? "idle" : "silent");
  }

  #evict(byPhase: ByPhase, places: number): boolean {
    const victim = firstEvictable(byPhase, places);
    if (victim === null) return false;
    this.#onEnd("evicted", victim.address);
    // Its close event comes later; its place is free now.
    this.#remove(victim);
    victim.socket.destroy();
    return true;
  }

  #move(connection: Connection, phase: Phase): void {
    if (!this.#all[connection.phase].delete(connection)) return;
    this.#all[phase].add(connection);
    const ofAddress = this.#byAddress.get(connection.address);
    ofAddress?.[connection.phase].delete(connection);
    ofAddress?.[phase].add(connection);
    connection.phase = phase;
  }

  #remove(connection: Connection): void {
    if (!this.#all[connection.phase].delete(connection)) return;
    const ofAddress = this.#byAddress.get(connection.address);
    ofAddress?.[connection.phase].delete(connection);
    if (ofAddress !== undefined && sizeOf(ofAddress) === 0) this.#byAddress.delete(connection.address);
  }
}
