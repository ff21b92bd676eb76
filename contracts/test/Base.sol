// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ConunToken} from "../src/ConunToken.sol";
import {Disputes} from "../src/Disputes.sol";
import {JobEscrow} from "../src/JobEscrow.sol";
import {MerkleSum} from "../src/MerkleSum.sol";
import {ProviderRegistry} from "../src/ProviderRegistry.sol";

/// The cheatcodes of forge that the tests use (https://getfoundry.sh/reference/cheatcodes/overview).
interface Vm {
    function prank(address sender) external;
    function startPrank(address sender) external;
    function stopPrank() external;
    function warp(uint256 timestamp) external;
    function chainId(uint256 id) external;
    function addr(uint256 key) external pure returns (address);
    function sign(uint256 key, bytes32 digest) external pure returns (uint8 v, bytes32 r, bytes32 s);
    function expectRevert(bytes calldata data) external;
    function expectRevert(bytes4 selector) external;
    function assume(bool condition) external pure;
    function computeCreateAddress(address deployer, uint256 nonce) external pure returns (address);
    function getNonce(address account) external view returns (uint64);
    function snapshotGasLastCall(string calldata name) external returns (uint256);
}

/// Contracts as they are deployed, people with keys, and a few words for what they sign.
abstract contract Base {
    Vm internal constant vm = Vm(address(uint160(uint256(keccak256("hevm cheat code")))));

    uint256 internal constant CLIENT_KEY = 0xC11E27;
    uint256 internal constant SPENDER_KEY = 0x59E2DE2;
    uint256 internal constant NODE_KEY = 0x20DE;
    uint128 internal constant DEPOSIT = 1_000 ether;
    bytes32 internal constant JOB = bytes32(bytes16(hex"0192aabbccddeeff0011223344556677"));

    address internal immutable client = vm.addr(CLIENT_KEY);
    address internal immutable spender = vm.addr(SPENDER_KEY);
    address internal immutable node = vm.addr(NODE_KEY);
    address internal immutable operator = address(0x0BE2A702);
    address internal immutable payout = address(0x9A40);
    address internal immutable admin = address(0xAD317);

    ConunToken internal token;
    ProviderRegistry internal registry;
    JobEscrow internal escrow;
    Disputes internal disputes;

    function setUp() public virtual {
        vm.warp(1_000_000);
        token = new ConunToken(address(this), 1_000_000 ether);
        registry = new ProviderRegistry(token, later(1), later(2));
        escrow = new JobEscrow(token, registry, admin);
        disputes = new Disputes(escrow, 100 ether);
        token.transfer(client, 100_000 ether);
        token.transfer(operator, 1_000 ether);
        vm.prank(client);
        token.approve(address(escrow), type(uint256).max);
        vm.startPrank(operator);
        token.approve(address(registry), type(uint256).max);
        registry.stake(500 ether);
        registry.setPayout(payout);
        registry.delegate(node, signed(NODE_KEY, consent(operator)));
        vm.stopPrank();
    }

    /// Where the contract will be that this one deploys after so many others.
    function later(uint256 others) internal view returns (address) {
        return vm.computeCreateAddress(address(this), vm.getNonce(address(this)) + others);
    }

    function openJob() internal {
        vm.prank(client);
        escrow.open(JOB, DEPOSIT, spender, DEPOSIT / 2);
    }

    function signed(uint256 key, bytes32 digest) internal pure virtual returns (bytes memory) {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(key, digest);
        return abi.encodePacked(r, s, v);
    }

    /// The domain as `conun_types::eip712::Domain::separator` has it.
    function domain(address verifier) internal view returns (bytes32) {
        return keccak256(
            abi.encode(
                keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"),
                keccak256("Conun"),
                keccak256("1"),
                block.chainid,
                verifier
            )
        );
    }

    function typed(address verifier, bytes32 hash) internal view returns (bytes32) {
        return keccak256(abi.encodePacked(hex"1901", domain(verifier), hash));
    }

    function consent(address to) internal view returns (bytes32) {
        return typed(address(registry), keccak256(abi.encode(registry.CONSENT_TYPEHASH(), to)));
    }

    function voucher(address provider, uint128 cumulative) internal view returns (bytes32) {
        return typed(address(escrow), keccak256(abi.encode(escrow.VOUCHER_TYPEHASH(), JOB, provider, cumulative)));
    }

    function settlement(JobEscrow.Batch memory batch, JobEscrow.Earning[] memory earnings, bytes memory records)
        internal
        view
        returns (bytes32)
    {
        return typed(
            address(escrow),
            keccak256(
                abi.encode(
                    escrow.SETTLEMENT_TYPEHASH(),
                    batch.job,
                    batch.batch,
                    batch.root,
                    batch.stages,
                    keccak256(abi.encode(earnings)),
                    keccak256(records)
                )
            )
        );
    }

    function one(address provider, uint128 cumulative) internal pure returns (JobEscrow.Earning[] memory earnings) {
        earnings = new JobEscrow.Earning[](1);
        earnings[0] = JobEscrow.Earning(provider, cumulative);
    }

    function batchOf(uint32 number, uint32 stages) internal pure returns (JobEscrow.Batch memory) {
        return JobEscrow.Batch(JOB, number, keccak256("root"), stages);
    }

    function settleOne(uint256 key, uint32 number, uint128 cumulative) internal {
        JobEscrow.Batch memory batch = batchOf(number, 1);
        JobEscrow.Earning[] memory earnings = one(node, cumulative);
        bytes memory signature = signed(key, settlement(batch, earnings, ""));
        escrow.settle(batch, earnings, "", signature);
    }

    /// A permit of the key's first nonce.
    function permit(uint256 key, address to, uint256 amount) internal view returns (uint8, bytes32, bytes32) {
        bytes32 hash = keccak256(
            abi.encode(
                keccak256("Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)"),
                vm.addr(key),
                to,
                amount,
                0,
                block.timestamp
            )
        );
        return vm.sign(key, keccak256(abi.encodePacked(hex"1901", token.DOMAIN_SEPARATOR(), hash)));
    }

    function receiptOf(address provider, bytes32 order, uint64 units)
        internal
        pure
        returns (Disputes.TaskReceipt memory)
    {
        return Disputes.TaskReceipt(order, provider, "profile", "inputs", "outputs", 1, 2, units);
    }

    function by(uint256 key, Disputes.TaskReceipt memory receipt)
        internal
        view
        returns (Disputes.SignedReceipt memory)
    {
        bytes32 digest = typed(address(escrow), disputes.receiptHash(receipt));
        return Disputes.SignedReceipt(receipt, signed(key, digest));
    }

    function by(uint256 key, Disputes.StageClaim memory claim) internal view returns (Disputes.SignedClaim memory) {
        bytes32 digest = typed(address(escrow), disputes.claimHash(claim));
        return Disputes.SignedClaim(claim, signed(key, digest));
    }

    /// A claim for some receipts, as an honest node makes it.
    function claimOf(address provider, uint32 stage, Disputes.Leaf[] memory leaves)
        internal
        view
        returns (Disputes.StageClaim memory)
    {
        (bytes32 root, uint128 total) = disputes.receiptsRoot(leaves);
        return Disputes.StageClaim(JOB, JOB, stage, provider, uint32(leaves.length), uint64(total), 2 * total, root);
    }

    function leaf(bytes32 item, uint128 sum) internal pure returns (MerkleSum.Node memory) {
        return MerkleSum.Node(keccak256(bytes.concat(hex"00", item, bytes16(sum))), sum);
    }

    function inner(MerkleSum.Node memory a, MerkleSum.Node memory b) internal pure returns (MerkleSum.Node memory) {
        bytes memory text = bytes.concat(hex"01", a.hash, bytes16(a.sum), b.hash, bytes16(b.sum));
        return MerkleSum.Node(keccak256(text), a.sum + b.sum);
    }

    /// Where a leaf stands among others: siblings bottom up, by a walk of the test's own.
    function proofOf(Disputes.Leaf[] memory leaves, uint32 index) internal pure returns (Disputes.Inclusion memory) {
        MerkleSum.Node[] memory level = new MerkleSum.Node[](leaves.length);
        for (uint256 i = 0; i < leaves.length; i++) {
            level[i] = leaf(leaves[i].orderHash, leaves[i].units);
        }
        MerkleSum.Node[] memory path = new MerkleSum.Node[](0);
        for (uint256 place = index; level.length > 1; place /= 2) {
            if ((place ^ 1) < level.length) path = push(path, level[place ^ 1]);
            level = above(level);
        }
        return Disputes.Inclusion(index, leaves[index].units, path);
    }

    function above(MerkleSum.Node[] memory level) private pure returns (MerkleSum.Node[] memory up) {
        up = new MerkleSum.Node[]((level.length + 1) / 2);
        for (uint256 i = 0; i < up.length; i++) {
            up[i] = 2 * i + 1 < level.length ? inner(level[2 * i], level[2 * i + 1]) : level[2 * i];
        }
    }

    function push(MerkleSum.Node[] memory path, MerkleSum.Node memory node_)
        private
        pure
        returns (MerkleSum.Node[] memory longer)
    {
        longer = new MerkleSum.Node[](path.length + 1);
        for (uint256 i = 0; i < path.length; i++) {
            longer[i] = path[i];
        }
        longer[path.length] = node_;
    }

    function equal(uint256 found, uint256 expected, string memory what) internal pure {
        require(found == expected, what);
    }
}
