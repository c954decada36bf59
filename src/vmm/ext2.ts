/*
 * An empty ext2 file system as bytes: what a scratch drive begins with. Written here and not by mke2fs, because a drive
 * is made for every microVM: of half a GiB only these few blocks are put into a sparse file, at no process's cost.
 *
 * Layout: "The Second Extended Filesystem", docs.kernel.org/filesystems/ext2.html, and fs/ext2/ext2.h. Revision 1,
 * blocks of 4 KiB, no journal, copies of the superblock in the groups 0, 1 and powers of 3, 5 and 7.
 */

const BLOCK_BYTES = 4096;
const BLOCKS_PER_GROUP: number = BLOCK_BYTES * 8;
const POINTERS_PER_BLOCK: number = BLOCK_BYTES / 4;
const DIRECT_BLOCKS = 12;
const INODE_BYTES = 128;
/** One for every 16 KiB, as mke2fs gives. */
const INODES_PER_GROUP: number = BLOCKS_PER_GROUP / 4;
const INODE_TABLE_BLOCKS: number = (INODES_PER_GROUP * INODE_BYTES) / BLOCK_BYTES;
const DESCRIPTOR_BYTES = 32;
const ROOT_INODE = 2;
const FIRST_FREE_INODE = 11;
/** A last group smaller than its own tables and this is not worth having. */
const GROUP_BLOCKS_MIN = 64;

const MAGIC = 0xef53;
const SUPERBLOCK_OFFSET = 1024;
const INCOMPAT_FILETYPE = 0x2;
const RO_COMPAT_SPARSE_SUPER = 0x1;
const RO_COMPAT_LARGE_FILE = 0x2;
/** A directory that all may write to and none may remove others' files from. */
const ROOT_MODE = 0o041777;

/** Bytes at a place of the drive; everywhere else it is zero. */
export interface Extent {
  readonly offset: number;
  readonly bytes: Uint8Array;
}

export interface EmptyFileSystem {
  /** Length of the drive. */
  readonly bytes: number;
  readonly extents: readonly Extent[];
}

interface Geometry {
  readonly blocks: number;
  readonly groups: number;
  readonly descriptorBlocks: number;
  readonly freeBlocks: number;
}

/** Blocks that point to the blocks of one file of so many: single, double and triple indirect ones. */
const pointerBlocks = (dataBlocks: number): number => {
  let blocks = 0;
  let level = Math.max(0, dataBlocks - DIRECT_BLOCKS);
  while (level > 0) {
    level = Math.ceil(level / POINTERS_PER_BLOCK);
    blocks += level;
    if (level === 1) break;
  }
  return blocks + 2;
};

const isPowerOf = (number: number, base: number): boolean => {
  let power = base;
  while (power < number) power *= base;
  return power === number;
};

const hasSuperblock = (group: number): boolean =>
  group <= 1 || isPowerOf(group, 3) || isPowerOf(group, 5) || isPowerOf(group, 7);

const tableBlocks = (group: number, descriptorBlocks: number): number =>
  (hasSuperblock(group) ? 1 + descriptorBlocks : 0) + 2 + INODE_TABLE_BLOCKS;

/** As many blocks as a single file of `capacityBytes` needs, its pointers included, and the tables of their groups. */
const geometryOf = (capacityBytes: number): Geometry => {
  const dataBlocks = Math.ceil(capacityBytes / BLOCK_BYTES);
  const wanted = dataBlocks + pointerBlocks(dataBlocks) + 1;
  for (let groups = 1; ; groups += 1) {
    const descriptorBlocks = Math.ceil((groups * DESCRIPTOR_BYTES) / BLOCK_BYTES);
    let tables = 0;
    for (let group = 0; group < groups; group += 1) tables += tableBlocks(group, descriptorBlocks);
    const lastMin = (groups - 1) * BLOCKS_PER_GROUP + tableBlocks(groups - 1, descriptorBlocks) + GROUP_BLOCKS_MIN;
    const blocks = Math.max(wanted + tables, lastMin);
    if (blocks <= groups * BLOCKS_PER_GROUP) {
      return { blocks, groups, descriptorBlocks, freeBlocks: blocks - tables - 1 };
    }
  }
};

const setBits = (bitmap: Uint8Array, from: number, to: number): void => {
  for (let bit = from; bit < to; bit += 1) bitmap[bit >> 3] = (bitmap[bit >> 3] ?? 0) | (1 << (bit & 7));
};

const superblockOf = (geometry: Geometry, group: number, uuid: Uint8Array, unixSeconds: number): Uint8Array => {
  const bytes = new Uint8Array(BLOCK_BYTES);
  // The first one lies behind a boot sector's place, its copies begin their block.
  const view = new DataView(bytes.buffer, group === 0 ? SUPERBLOCK_OFFSET : 0);
  const inodes = geometry.groups * INODES_PER_GROUP;
  const u32: readonly (readonly [offset: number, value: number])[] = [
    [0, inodes],
    [4, geometry.blocks],
    [12, geometry.freeBlocks],
    [16, inodes - FIRST_FREE_INODE + 1],
    [24, Math.log2(BLOCK_BYTES / 1024)],
    [28, Math.log2(BLOCK_BYTES / 1024)],
    [32, BLOCKS_PER_GROUP],
    [36, BLOCKS_PER_GROUP],
    [40, INODES_PER_GROUP],
    [48, unixSeconds],
    [64, unixSeconds],
    [76, 1],
    [84, FIRST_FREE_INODE],
    [96, INCOMPAT_FILETYPE],
    [100, RO_COMPAT_SPARSE_SUPER | RO_COMPAT_LARGE_FILE],
  ];
  for (const [offset, value] of u32) view.setUint32(offset, value, true);
  const u16: readonly (readonly [offset: number, value: number])[] = [
    // Never checked for having been mounted often, clean, and errors do not stop it.
    [54, 0xffff],
    [56, MAGIC],
    [58, 1],
    [60, 1],
    [88, INODE_BYTES],
    [90, group],
  ];
  for (const [offset, value] of u16) view.setUint16(offset, value, true);
  bytes.set(uuid, view.byteOffset + 104);
  return bytes;
};

/** First block of a group's bitmaps and tables. */
const tablesAt = (group: number, descriptorBlocks: number): number =>
  group * BLOCKS_PER_GROUP + (hasSuperblock(group) ? 1 + descriptorBlocks : 0);

const rootBlockOf = (descriptorBlocks: number): number => tablesAt(0, descriptorBlocks) + 2 + INODE_TABLE_BLOCKS;

const descriptorsOf = ({ blocks, groups, descriptorBlocks }: Geometry): Uint8Array => {
  const bytes = new Uint8Array(descriptorBlocks * BLOCK_BYTES);
  const view = new DataView(bytes.buffer);
  for (let group = 0; group < groups; group += 1) {
    const at = group * DESCRIPTOR_BYTES;
    const tables = tablesAt(group, descriptorBlocks);
    const groupBlocks = Math.min(BLOCKS_PER_GROUP, blocks - group * BLOCKS_PER_GROUP);
    const root = group === 0 ? 1 : 0;
    view.setUint32(at, tables, true);
    view.setUint32(at + 4, tables + 1, true);
    view.setUint32(at + 8, tables + 2, true);
    view.setUint16(at + 12, groupBlocks - tableBlocks(group, descriptorBlocks) - root, true);
    view.setUint16(at + 14, INODES_PER_GROUP - (group === 0 ? FIRST_FREE_INODE - 1 : 0), true);
    view.setUint16(at + 16, root, true);
  }
  return bytes;
};

/** The two bitmaps of a group, one behind the other. Bits beyond the group's end count as taken. */
const bitmapsOf = ({ blocks, descriptorBlocks }: Geometry, group: number): Uint8Array => {
  const bytes = new Uint8Array(2 * BLOCK_BYTES);
  const ofBlocks = bytes.subarray(0, BLOCK_BYTES);
  setBits(ofBlocks, 0, tableBlocks(group, descriptorBlocks) + (group === 0 ? 1 : 0));
  setBits(ofBlocks, Math.min(BLOCKS_PER_GROUP, blocks - group * BLOCKS_PER_GROUP), BLOCKS_PER_GROUP);
  const ofInodes = bytes.subarray(BLOCK_BYTES);
  if (group === 0) setBits(ofInodes, 0, FIRST_FREE_INODE - 1);
  setBits(ofInodes, INODES_PER_GROUP, BLOCKS_PER_GROUP);
  return bytes;
};

const rootInode = (block: number, unixSeconds: number): Uint8Array => {
  const bytes = new Uint8Array(INODE_BYTES);
  const view = new DataView(bytes.buffer);
  view.setUint16(0, ROOT_MODE, true);
  view.setUint32(4, BLOCK_BYTES, true);
  for (const time of [8, 12, 16]) view.setUint32(time, unixSeconds, true);
  view.setUint16(26, 2, true);
  view.setUint32(28, BLOCK_BYTES / 512, true);
  view.setUint32(40, block, true);
  return bytes;
};

/** "." and "..", both the root itself. */
const rootDirectory = (): Uint8Array => {
  const bytes = new Uint8Array(BLOCK_BYTES);
  const view = new DataView(bytes.buffer);
  const entry = (at: number, length: number, name: string): void => {
    view.setUint32(at, ROOT_INODE, true);
    view.setUint16(at + 4, length, true);
    bytes.set([name.length, 2, ...Buffer.from(name)], at + 6);
  };
  entry(0, 12, ".");
  entry(12, BLOCK_BYTES - 12, "..");
  return bytes;
};

/**
 * An empty file system, root's directory open to all (mode 1777), in which one file of `capacityBytes` has room; more than one have a
 * little less. `uuid` has 16 bytes. Up to 2 TiB, the reach of ext2's 32-bit counts.
 */
export const emptyExt2 = (capacityBytes: number, uuid: Uint8Array, unixSeconds: number): EmptyFileSystem => {
  const geometry = geometryOf(capacityBytes);
  const { groups, descriptorBlocks } = geometry;
  const descriptors = descriptorsOf(geometry);
  const extents: Extent[] = [];
  const put = (block: number, ...parts: readonly Uint8Array[]): void => {
    extents.push({ offset: block * BLOCK_BYTES, bytes: Buffer.concat(parts) });
  };
  const rootBlock = rootBlockOf(descriptorBlocks);
  for (let group = 0; group < groups; group += 1) {
    const head = hasSuperblock(group) ? [superblockOf(geometry, group, uuid, unixSeconds), descriptors] : [];
    const inodes = group === 0 ? [new Uint8Array(INODE_BYTES), rootInode(rootBlock, unixSeconds)] : [];
    put(
      hasSuperblock(group) ? group * BLOCKS_PER_GROUP : tablesAt(group, descriptorBlocks),
      ...head,
      bitmapsOf(geometry, group),
      ...inodes,
    );
  }
  put(rootBlock, rootDirectory());
  return { bytes: geometry.blocks * BLOCK_BYTES, extents };
};
